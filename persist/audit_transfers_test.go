package persist_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/tinylib/msgp/msgp"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

func TestAudit_FindsTamperingWithTransfers(t *testing.T) {
	s, conn := start(t, shop.Config{Partitions: 4, Hold: time.Hour})
	product, users := s.Product(1, 60), s.Users(8, 1000)
	place(t, s, users[0], "from all shares", line(product, 45))
	trade(t, s, product, users)
	settled(t, s, conn)
	unwritten(t, s)
	few := s.Product(1, 8)
	awaitSynced(t, conn)
	underWay(t, s, few, users[0], 8)
	putBack := keepAside(t, conn)
	keys, ctx := testKeys(t, 4), t.Context()
	var p, peer, epoch, seq, units int64 // of one that is open
	err := conn.QueryRow(ctx, `SELECT partition, peer, epoch, seq, -delta FROM stock_ledger WHERE kind = 'sent' AND product_id = $1 LIMIT 1`, few).
		Scan(&p, &peer, &epoch, &seq, &units)
	if err != nil {
		t.Fatal(err)
	}
	at := int(p)
	record := func(out []int64, in ...int64) string {
		b := msgp.AppendInt(msgp.AppendArrayHeader(nil, 3), 0)
		for _, flat := range [][]int64{out, in} {
			b = msgp.AppendArrayHeader(b, uint32(len(flat))) //nolint:gosec // a few
			for _, v := range flat {
				b = msgp.AppendInt64(b, v)
			}
		}
		return string(b)
	}
	set := func(key, value string) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
		return inRedis(key, func(p redis.Pipeliner) { p.Set(ctx, key, value, 0) })
	}
	x, moving := keys.Transfers(at, few), keys.Moving(at)
	open := []int64{peer, epoch, seq, units}
	var to, from, inEpoch, inSeq int64 // of one that came last
	err = conn.QueryRow(ctx, `SELECT DISTINCT ON (partition, peer) partition, peer, sent_epoch, sent_seq FROM stock_ledger
		WHERE kind = 'received' AND product_id = $1 ORDER BY partition, peer, sent_epoch DESC, sent_seq DESC LIMIT 1`, product).Scan(&to, &from, &inEpoch, &inSeq)
	if err != nil {
		t.Fatal(err)
	}
	y := keys.Transfers(int(to), product)
	received := fmt.Sprintf("kind = 'received' AND partition = %d AND peer = %d AND sent_epoch = %d AND sent_seq = %d", to, from, inEpoch, inSeq)
	row := fmt.Sprintf("stock_ledger partition=%d", to)
	on := func(name, where, change, named string) tampering {
		do := "UPDATE stock_ledger SET " + change + " WHERE " + where
		if change == "" {
			do = "DELETE FROM stock_ledger WHERE " + where
		}
		return tampering{name, inPostgres(do, putBack("stock_ledger", "true")), named}
	}
	tamper(t, s, conn, []tampering{
		{"units under way", set(x, record([]int64{peer, epoch, seq, units + 1})), x},
		{"the name of what is under way", set(x, record([]int64{peer, epoch, seq + 1, units})), x},
		{"under way to another partition", set(x, record([]int64{6 - peer - p, epoch, seq, units})), x},
		{"nothing under way", set(x, record(nil)), x},
		{"no record of transfers", inRedis(x, func(p redis.Pipeliner) { p.Del(ctx, x) }), x},
		{"a record that is none", set(x, "x"), x},
		{"more that is under way", set(x, record(append([]int64{9, 1, 1, 1}, open...))), x},
		{"what never came", set(x, record(open, peer, 1, 1)), x},
		{"what came last", set(y, record(nil, from, inEpoch, inSeq+1)), y},
		{"what came before the last", set(y, record(nil, from, inEpoch, inSeq-1)), y},
		{"nothing came", set(y, record(nil)), y},
		{"nothing moves", inRedis(moving, func(p redis.Pipeliner) { p.Del(ctx, moving) }), moving},
		{"more that moves", inRedis(moving, func(p redis.Pipeliner) {
			p.ZAdd(ctx, moving, redis.Z{Score: 1, Member: engine.Moving(product, int(peer))})
		}), moving},
		{"what moves and is no transfer", inRedis(moving, func(p redis.Pipeliner) { p.ZAdd(ctx, moving, redis.Z{Score: 1, Member: "x"}) }), moving},
		{"a record of no product", set(keys.Transfers(0, 77), record(nil)), keys.Transfers(0, 77)},
		{"growth of no product", set(keys.Grown(0, 77), "1"), keys.Grown(0, 77)},
		{"a share that goes to another", func(t *testing.T, s *shoptest.Shop, _ *pgx.Conn) func() {
			a, b := keys.Stock(0, product), keys.Stock(1, product)
			exchange := func(n int64) {
				if err := s.Redis.IncrBy(t.Context(), a, n).Err(); err != nil {
					t.Fatal(err)
				}
				if err := s.Redis.IncrBy(t.Context(), b, -n).Err(); err != nil {
					t.Fatal(err)
				}
			}
			exchange(1)
			return func() { exchange(-1) }
		}, keys.Stock(0, product)},
		{"a missing share", inRedis(keys.Stock(3, few), func(p redis.Pipeliner) { p.Del(ctx, keys.Stock(3, few)) }), keys.Stock(3, few)},

		on("received by another event", received, "sent_seq = sent_seq + 1000", row),
		on("received from another partition", received, "peer = (SELECT min(other) FROM generate_series(0, 3) other WHERE other NOT IN (partition, peer))", row),
		on("received from oneself", received, "peer = partition", row),
		on("received and not counted", received, "", "stock_ledger"),
		on("sent and not counted", fmt.Sprintf("kind = 'sent' AND partition = %d AND epoch = %d AND seq = %d", from, inEpoch, inSeq), "", row),
		on("less sent", fmt.Sprintf("kind = 'sent' AND partition = %d AND epoch = %d AND seq = %d", from, inEpoch, inSeq), "delta = delta + 1", row),
		on("sent under another name", fmt.Sprintf("kind = 'sent' AND partition = %d AND epoch = %d AND seq = %d", from, inEpoch, inSeq), "sent_seq = sent_seq + 1",
			fmt.Sprintf("stock_ledger partition=%d", from)),
		on("a peer of an order", "kind = 'order' AND partition = "+fmt.Sprint(to), "peer = 1", row),
		{"received twice", inPostgres("INSERT INTO stock_ledger SELECT (r).* FROM (SELECT (jsonb_populate_record(l, jsonb_build_object('seq', seq + 9000))) AS r FROM stock_ledger l WHERE "+received+") n",
			"DELETE FROM stock_ledger WHERE seq > 9000"), "seq=90"},
		{"two under way", inPostgres(fmt.Sprintf(`INSERT INTO stock_ledger SELECT (r).* FROM (SELECT (jsonb_populate_record(l, jsonb_build_object('seq', seq + 9000, 'sent_seq', seq + 9000))) AS r
			FROM stock_ledger l WHERE kind = 'sent' AND partition = %d AND epoch = %d AND seq = %d AND product_id = %d) n`, p, epoch, seq, few),
			"DELETE FROM stock_ledger WHERE seq > 9000"), fmt.Sprintf("stock_ledger partition=%d product_id=%d", p, few)},
	}, "received = sent", "transfers in Redis = Postgres", "stock in Redis = Postgres", "keys in Redis have a row", "shape of postings", "no oversell")
}

func testKeys(t *testing.T, partitions int) *engine.Keys {
	t.Helper()
	keys, err := engine.NewKeys(partitions)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Audits and a sampler look while units move and are sold out everywhere: nothing is wrong.
func TestAudit_WhileUnitsMove(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 4, Hold: 300 * time.Millisecond})
	products, users := []int64{s.Product(1, 40), s.Product(1, 400)}, s.Users(8, 1000)
	place(t, s, users[0], "from all shares", line(products[1], 200))
	stop := busy(t, s.Shop, users, products, 3)
	for range 4 {
		auditClean(t, s)
	}
	stop()
	for _, product := range products {
		trade(t, s, product, users)
	}
	auditClean(t, s)
	if number(t, conn, "SELECT count(*) FROM stock_ledger WHERE kind = 'received'") == 0 {
		t.Error("nothing moved")
	}
}
