package engine

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

const slots = 16384 // of Redis Cluster

// Keys builds every key of a deployment with P partitions. All keys of a partition carry its hash tag, so that a
// script's keys share one slot of Redis Cluster.
type Keys struct {
	tags []string
}

// DeploymentKey holds what must not change while data stands in Redis: deployment id and number of partitions.
// It is the only key without a partition.
const DeploymentKey = "stampede:deployment"

// NewKeys returns the keys of a deployment with the given number of partitions, 1 to PartitionsMax.
func NewKeys(partitions int) (*Keys, error) {
	if partitions < 1 || partitions > PartitionsMax {
		return nil, fmt.Errorf("partitions must be 1 to %d, not %d", PartitionsMax, partitions)
	}
	k := &Keys{tags: make([]string, partitions)}
	for p := range k.tags {
		k.tags[p] = tag(p, partitions)
	}
	return k, nil
}

// tag returns the hash tag of partition p of n: the partition's number and letters chosen so that the slot lies in
// the middle half of the p-th of n equal bands of slots. Plain numbers would fall unevenly on few masters.
func tag(p, n int) string {
	low := (4*p + 1) * slots / (4 * n)
	high := (4*p + 3) * slots / (4 * n)
	for i := 0; ; i++ {
		name := strconv.Itoa(p) + letters(i)
		if slot := int(crc16(name)) % slots; low <= slot && slot < high {
			return "{" + name + "}"
		}
	}
}

// slotOf is the slot of a key, of its hash tag where it has one.
func slotOf(key string) int {
	if _, tag, found := strings.Cut(key, "{"); found {
		key, _, _ = strings.Cut(tag, "}")
	}
	return int(crc16(key)) % slots
}

// letters counts a, b, ... z, aa, ab, ...
func letters(i int) string {
	s := string(rune('a' + i%26))
	if i >= 26 {
		s = letters(i/26-1) + s
	}
	return s
}

// crc16 is the CRC-16/XMODEM that Redis Cluster takes for slots.
func crc16(s string) uint16 {
	var crc uint16
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// Partitions returns P.
func (k *Keys) Partitions() int { return len(k.tags) }

// OfUser returns the partition in which a user's balance, orders and idempotency records live.
func (k *Keys) OfUser(user int64) int {
	return int(mix(uint64(user)) % uint64(len(k.tags)))
}

// Home returns the partition that holds a product's pool of stock.
func (k *Keys) Home(product int64) int {
	return int(mix(uint64(product)^0x70726f64756374) % uint64(len(k.tags)))
}

// OfEvent returns the partition in which an event would happen, whatever the number of partitions was when it did.
func (k *Keys) OfEvent(ev *Event) int {
	if ev.Kind == Restocked {
		return k.Home(ev.ProductID)
	}
	return k.OfUser(ev.UserID)
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood 2014): a fixed bijection, so a partition never moves.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Meta is the hash with a partition's door and counters.
func (k *Keys) Meta(p int) string { return k.tags[p] + "meta" }

// Events is a partition's stream.
func (k *Keys) Events(p int) string { return k.tags[p] + "events" }

// Listed is the highest product id of the catalogue in a partition.
func (k *Keys) Listed(p int) string { return k.tags[p] + "listed" }

// Holds is the sorted set of a partition's unpaid orders (8 bytes each) by deadline in ms.
func (k *Keys) Holds(p int) string { return k.tags[p] + "holds" }

// Top is the sorted set of the units sold in the window, by product: see topMember.
func (k *Keys) Top(p int) string { return k.tags[p] + "top" }

// Cart is a user's cart.
func (k *Keys) Cart(p int, user int64) string { return k.id(p, "cart:", user) }

// Sold is the hash of units sold in a minute of Unix time, by product.
func (k *Keys) Sold(p int, minute int64) string { return k.id(p, "m:", minute) }

// Balance is a user's balance in minor units.
func (k *Keys) Balance(p int, user int64) string { return k.id(p, "b:", user) }

// Stock is a partition's share of a product's stock, in units.
func (k *Keys) Stock(p int, product int64) string { return k.id(p, "s:", product) }

// Grown counts how often a partition's share of a product has grown; only with several partitions.
func (k *Keys) Grown(p int, product int64) string { return k.id(p, "v:", product) }

// Transfers is the record of what moves between a partition's share of a product and others: see transfer.go.
func (k *Keys) Transfers(p int, product int64) string { return k.id(p, "x:", product) }

// Wanted is the hash of what orders wait for of a product, by process, in the product's home: see claims.go.
func (k *Keys) Wanted(p int, product int64) string { return k.id(p, "w:", product) }

// Moving is the sorted set of the units that have left a partition, and of which it is not settled yet that they arrived:
// "<product>:<partition>" by time in ms.
func (k *Keys) Moving(p int) string { return k.tags[p] + "moving" }

// Catalogue is a product's catalogue record.
func (k *Keys) Catalogue(p int, product int64) string { return k.id(p, "c:", product) }

// Order is an order's record.
func (k *Keys) Order(p int, order int64) string { return k.id(p, "o:", order) }

func (k *Keys) id(p int, kind string, id int64) string {
	b := make([]byte, 0, 32)
	b = append(b, k.tags[p]...)
	b = append(b, kind...)
	return string(strconv.AppendInt(b, id, 10))
}

// adminScope stands where a user's id stands: admin keys are a scope of their own.
const adminScope = 0

// Idempotency is the record of an idempotency key within a user's scope. The key is hashed, so that 255 characters
// cost Redis as much as ten; 128 bits of SHA-256 leave no collision to find.
func (k *Keys) Idempotency(p int, scope int64, key string) string {
	var text [20 + 1 + 4*KeyMax]byte
	b := strconv.AppendInt(text[:0], scope, 10)
	b = append(b, ':')
	b = append(b, key...)
	sum := sha256.Sum256(b)
	out := make([]byte, 0, 32)
	out = append(out, k.tags[p]...)
	out = append(out, "i:"...)
	return string(base64.RawURLEncoding.AppendEncode(out, sum[:16]))
}
