package token

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// len counts the tokens remembered.
func (c *cache) len() int {
	n := 0
	for i := range c {
		s := &c[i]
		s.mu.RLock()
		n += len(s.young) + len(s.old)
		s.mu.RUnlock()
	}
	return n
}

func digestOf(i int) digest { return sha256.Sum256([]byte(fmt.Sprint(i))) }

func TestCache_HasALimit(t *testing.T) {
	c := newCache()
	for i := range 4 * cacheMax {
		c.add(digestOf(i), grant{user: int64(i)})
		if i%1000 == 0 || i > 4*cacheMax-1000 {
			if n := c.len(); n > cacheMax || n > i+1 {
				t.Fatalf("%d tokens remembered after %d; at most %d", n, i+1, cacheMax)
			}
		}
	}
	// After so many every shard has a full old generation.
	if n := c.len(); n < cacheMax/2 {
		t.Errorf("only %d tokens remembered", n)
	}
	for i := range 4 * cacheMax {
		if g, found := c.get(digestOf(i)); found && g.user != int64(i) {
			t.Fatalf("token %d is taken for one of user %d", i, g.user)
		}
	}
}

func TestCache_EachShardHasItsShare(t *testing.T) {
	c, most := newCache(), 0
	for i := range cacheMax / 8 {
		d := digestOf(i)
		d[0] = 0
		c.add(d, grant{})
		most = max(most, c.len())
	}
	if most != cacheMax/cacheShards {
		t.Errorf("up to %d tokens remembered in a shard, want %d", most, cacheMax/cacheShards)
	}
}

func TestCache_KeepsWhatIsInUse(t *testing.T) {
	c := newCache()
	const used = 100
	for i := range used {
		c.add(digestOf(-1-i), grant{user: int64(i)})
	}
	for i := range 4 * cacheMax {
		c.add(digestOf(i), grant{})
		if i%1000 != 0 {
			continue
		}
		for u := range used {
			if g, found := c.get(digestOf(-1 - u)); !found || g.user != int64(u) {
				t.Fatalf("a token in use is gone after %d others, or has another user: %t, %d", i, found, g.user)
			}
		}
	}
	if _, found := c.get(digestOf(0)); found {
		t.Error("a token is remembered long after its use")
	}
}

func TestUser_RemembersOnlyWhatWasValid(t *testing.T) {
	v := both(t)
	for _, token := range forged(t) {
		_, _ = v.User([]byte(token), now)
	}
	for payload := range refusedClaims() {
		_, _ = v.User([]byte(withHS256(payload)), now)
		_, _ = v.User([]byte(withEdDSA(payload)), now)
	}
	if n := v.cache.len(); n != 0 {
		t.Fatalf("%d refused tokens are remembered", n)
	}
	for range 3 {
		wantUser(t, v, withHS256(plain), now, 7)
		wantUser(t, v, withEdDSA(plain), now, 7)
	}
	if n := v.cache.len(); n != 2 {
		t.Errorf("%d tokens are remembered, 2 were valid", n)
	}
}

// A token that was verified costs no memory any more, valid or expired.
func TestUser_AllocatesNothingForWhatItRemembers(t *testing.T) {
	v := both(t)
	for _, token := range [][]byte{[]byte(withHS256(plain)), []byte(withEdDSA(plain))} {
		if _, err := v.User(token, now); err != nil {
			t.Fatal(err)
		}
		for at, want := range map[time.Time]error{now: nil, now.Add(24 * time.Hour): errExpired} {
			n := testing.AllocsPerRun(100, func() {
				if _, err := v.User(token, at); !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
			})
			if n != 0 {
				t.Errorf("%v allocations for a token that is remembered", n)
			}
		}
	}
}

// The caller's buffer is reused for other tokens, as a server's requests are.
func TestUser_KeepsNothingOfTheCallersBuffer(t *testing.T) {
	v := both(t)
	seven, eight := withHS256(plain), withHS256(`{"sub":"8","exp":`+exp+`}`)
	buffer := []byte(seven)
	for range 3 {
		for token, want := range map[string]int64{seven: 7, eight: 8} {
			copy(buffer, token)
			if user, err := v.User(buffer, now); user != want || err != nil {
				t.Fatalf("user %d, %v, want %d", user, err, want)
			}
		}
	}
}

func TestUser_ManyGoroutines(t *testing.T) {
	v := both(t)
	const goroutines, rounds, users = 16, 300, 40
	var tokens [users + 1][]byte
	for u := 1; u <= users; u++ {
		payload := fmt.Sprintf(`{"sub":"%d","exp":%s}`, u, exp)
		tokens[u] = []byte(withHS256(payload))
		if u%2 == 0 {
			tokens[u] = []byte(withEdDSA(payload))
		}
	}
	bad := []byte(signHS256([]byte("another secret"), segments(hs256, plain)))
	end := now.Add(2 * time.Hour)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(g))) //nolint:gosec // a small number
			for i := range rounds {
				u := 1 + random.IntN(users)
				if user, err := v.User(tokens[u], now); user != int64(u) || err != nil {
					t.Errorf("user %d, %v, want %d", user, err, u)
				}
				if _, err := v.User(tokens[u], end); !errors.Is(err, errExpired) {
					t.Errorf("after its end: %v", err)
				}
				if _, err := v.User(bad, now); !errors.Is(err, errSignature) {
					t.Errorf("forged: %v", err)
				}
				// Others push generations out all the while.
				for j := range 50 {
					v.cache.add(digestOf(g<<40|i<<20|j), grant{})
				}
			}
		})
	}
	wg.Wait()
	if n := v.cache.len(); n > cacheMax {
		t.Errorf("%d tokens remembered, at most %d", n, cacheMax)
	}
}
