package persist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	nodeLease = time.Hour
	nodeRenew = time.Minute
)

// Node is a leased node number: the part of an order id that tells engines apart.
type Node struct {
	Number int
	books  *Books
	holder string
}

// LeaseNode takes the number whose lease ended longest ago, so that a number comes back as late as possible: an
// engine that was frozen beyond its lease still shares it with nobody.
func (b *Books) LeaseNode(ctx context.Context, holder string) (*Node, error) {
	n := &Node{books: b, holder: holder}
	err := b.pool.QueryRow(ctx, `
		UPDATE nodes SET holder = $1, answers = $1, leased_until = now() + $2
		WHERE node = (SELECT node FROM nodes WHERE leased_until < now()
			ORDER BY leased_until, node LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING node`, holder, nodeLease).Scan(&n.Number)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, refused("all node numbers are leased; leases end %v after an engine died", nodeLease)
	}
	if err != nil {
		return nil, fmt.Errorf("leasing a node number: %w", err)
	}
	b.attendance.node.Store(int64(n.Number))
	return n, nil
}

// Keep renews the lease until ctx ends and then gives it back. While Postgres is down nobody else can take the
// number; if it was taken all the same, a new one is leased and handed to changed.
func (n *Node) Keep(ctx context.Context, changed func(node int)) {
	tick := time.NewTicker(nodeRenew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			n.Release()
			return
		case <-tick.C:
		}
		tag, err := n.books.pool.Exec(ctx,
			"UPDATE nodes SET leased_until = now() + $3 WHERE node = $1 AND holder = $2", n.Number, n.holder, nodeLease)
		if err != nil || tag.RowsAffected() == 1 {
			continue
		}
		fresh, err := n.books.LeaseNode(ctx, n.holder)
		if err != nil {
			n.books.log.Error("node number lost and no other to be had", "node", n.Number, "error", err)
			continue
		}
		n.books.log.Warn("node number lost, took another", "node", n.Number, "new", fresh.Number)
		n.Number = fresh.Number
		changed(n.Number)
	}
}

// Release gives the number back.
func (n *Node) Release() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	// Best effort: an unreturned number comes back when its lease ends.
	_, _ = n.books.pool.Exec(ctx, "UPDATE nodes SET leased_until = now() WHERE node = $1 AND holder = $2", n.Number, n.holder)
}
