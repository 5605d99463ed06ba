// Package persist is Postgres' side of Stampede: people and catalogue, which are written here first; the writer,
// which brings the events of Redis into the journal and the tables derived from it; the repair of a Redis that lost
// data; and the audit that holds the two against each other.
package persist
