package engine

import (
	"fmt"
	"strings"
	"testing"
)

func testKeys(t *testing.T, partitions int) *Keys {
	t.Helper()
	k, err := NewKeys(partitions)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeys_SlotsAreThoseOfRedisCluster(t *testing.T) {
	for text, want := range map[string]uint16{
		"123456789": 0x31C3, // the check value of CRC-16/XMODEM
		"":          0,
		"A":         0x58E5,
	} {
		if got := crc16(text); got != want {
			t.Errorf("crc16 of %q: %#x, want %#x", text, got, want)
		}
	}
	if slot := slotOf("{foo}bar"); slot != 12182 { // CLUSTER KEYSLOT foo
		t.Errorf("slot of foo: %d", slot)
	}
}

func TestKeys_PartitionsLieEvenlySpaced(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 12, 60, PartitionsMax} {
		k := testKeys(t, n)
		if k.Partitions() != n {
			t.Errorf("%d partitions, want %d", k.Partitions(), n)
		}
		for p := range n {
			slot := slotOf(k.Meta(p))
			if low, high := p*slots/n, (p+1)*slots/n; slot < low || slot >= high {
				t.Errorf("partition %d of %d lies in slot %d, its band is %d to %d", p, n, slot, low, high-1)
			}
		}
		// Whatever number of equal masters divides them, each gets the same number.
		for _, masters := range []int{1, 2, 3, 4, 6} {
			if n%masters != 0 {
				continue
			}
			on := make([]int, masters)
			for p := range n {
				on[slotOf(k.Meta(p))*masters/slots]++
			}
			for m, count := range on {
				if count != n/masters {
					t.Errorf("%d of %d partitions on master %d of %d", count, n, m, masters)
				}
			}
		}
	}
}

func TestKeys_OfAPartitionShareOneSlotAndDifferOtherwise(t *testing.T) {
	k := testKeys(t, 12)
	seen := map[string]string{}
	for p := range 12 {
		for name, key := range map[string]string{
			"meta": k.Meta(p), "events": k.Events(p), "listed": k.Listed(p), "sold": k.Sold(p, 7), "balance": k.Balance(p, 7),
			"stock": k.Stock(p, 7), "catalogue": k.Catalogue(p, 7), "order": k.Order(p, 7),
			"record": k.Idempotency(p, 7, "7"), "admin's record": k.Idempotency(p, adminScope, "7"),
			"largest id": k.Balance(p, IDMax), "largest order": k.Order(p, 1<<63-1),
		} {
			if slotOf(key) != slotOf(k.Meta(p)) {
				t.Errorf("%s of partition %d: %s lies in another slot", name, p, key)
			}
			if other, twice := seen[key]; twice {
				t.Errorf("%s of partition %d is also %s", name, p, other)
			}
			seen[key] = fmt.Sprintf("%s of partition %d", name, p)
		}
	}
}

// A partition never moves: these values must stay as they are for as long as there is data anywhere.
func TestKeys_AreStable(t *testing.T) {
	if got := mix(0); got != 0xe220a8397b1dcdaf { // the first number of SplitMix64 with seed 0
		t.Errorf("mix(0) is %#x", got)
	}
	k := testKeys(t, 12)
	for i, want := range []int{5, 10, 4, 3} {
		user := []int64{1, 2, 1000, IDMax}[i]
		if got := k.OfUser(user); got != want {
			t.Errorf("user %d lives in partition %d, want %d", user, got, want)
		}
	}
	for i, want := range []int{11, 0, 6, 5} {
		product := []int64{1, 2, 1000, IDMax}[i]
		if got := k.Home(product); got != want {
			t.Errorf("product %d is at home in partition %d, want %d", product, got, want)
		}
	}
	if got, want := k.Idempotency(0, 1, "key"), "{0ae}i:BnBoeWMb3kGpkUXTduPlYw"; got != want {
		t.Errorf("record %q, want %q", got, want)
	}
	if got, want := k.Sold(11, 29_000_000), "{11ad}m:29000000"; got != want {
		t.Errorf("minute %q, want %q", got, want)
	}
}

func TestKeys_SpreadUsersAndProductsEvenly(t *testing.T) {
	const each = 2000
	for _, n := range []int{2, 3, 12, 60} {
		k := testKeys(t, n)
		users, homes := make([]int, n), make([]int, n)
		for id := range int64(each * n) {
			users[k.OfUser(id+1)]++
			homes[k.Home(id+1)]++
		}
		for p := range n {
			// Six standard deviations of a fair throw.
			const low, high = each - 270, each + 270
			if users[p] < low || users[p] > high || homes[p] < low || homes[p] > high {
				t.Errorf("partition %d of %d has %d users and %d products of %d each", p, n, users[p], homes[p], each)
			}
		}
	}
}

func TestKeys_OfIdempotencyDifferByScopeAndKey(t *testing.T) {
	k := testKeys(t, 1)
	seen := map[string]string{}
	long := strings.Repeat("ж", KeyMax)
	for _, scope := range []int64{adminScope, 1, 2, 11, 12, IDMax} {
		for _, key := range []string{"a", "b", "1a", "1:a", "2", ":", "a ", "A", long, long[:len(long)-2]} {
			name := k.Idempotency(0, scope, key)
			if other, twice := seen[name]; twice {
				t.Errorf("scope %d, key %q and %s share a record", scope, key, other)
			}
			seen[name] = fmt.Sprintf("scope %d, key %q", scope, key)
			if len(name) > 40 {
				t.Errorf("%d bytes for a key of %d", len(name), len(key))
			}
			if again := k.Idempotency(0, scope, key); again != name {
				t.Errorf("%q, then %q", name, again)
			}
		}
	}
}

func TestKeys_NumberOfPartitionsIsBounded(t *testing.T) {
	for _, n := range []int{-1, 0, PartitionsMax + 1} {
		if _, err := NewKeys(n); err == nil {
			t.Errorf("%d partitions were accepted", n)
		}
	}
}
