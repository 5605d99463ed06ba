// Package baseline holds the servers that Stampede is measured against. Each stands behind the HTTP of engine/rest, so that
// what differs between them is how an order is decided and kept, and nothing else.
//
//   - Empty answers every order with the same one: what is left of the machine for a shop behind that HTTP.
//   - Evalsha is Stampede with one order a script call: what batches are worth.
//   - Postgres places an order in one transaction with row locks: what a shop without Redis would be.
//
// They are meant to be as good as their approach can be: a weak opponent proves nothing.
package baseline
