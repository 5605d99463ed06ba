// Package engine is the domain of Stampede: balances, stock, carts, orders and the best sellers, decided in Redis.
//
// An operation walks one corridor, a file each:
//
//	order.go, payment.go, cancel.go,
//	cart.go, balance.go, product.go    typed requests: check, fingerprint, partition
//	batcher.go                         bounded queue of a partition
//	worker.go                          takes what waits, one call for all of it
//	call.go                            EVALSHA, healing, what a failure means
//	script_*.go                        one script each: operations in, replies out
//	door.go                            is this Redis the one the books know?
//	event.go, record.go                what the scripts write
//
// Beside it:
//
//	reads.go, shared.go, top.go        what only reads, gathered
//	sweep.go                           ends holds at their deadline
//	archive.go                         orders that Redis has let go
//	replay.go                          from the journal back into Redis
//	probe.go, metrics.go, pool.go      what an operator asks for
//
// Keys are built in keys.go alone. The package knows neither HTTP nor Postgres.
package engine
