package token

import (
	"crypto/sha256"
	"sync"
)

const (
	cacheMax      = 1 << 16 // tokens
	cacheShards   = 64
	generationMax = cacheMax / cacheShards / 2
)

// digest is the SHA-256 of a token: entries have one size whatever a token's, and no credential stays in memory.
type digest [sha256.Size]byte

// cache remembers what tokens with a valid signature grant, so that a token which is sent with every request is
// verified once. It forgets by generations: a full young one becomes the old one, and the old one goes. A token that
// was used since the last change of generations is therefore still known after the next.
type cache [cacheShards]shard

type shard struct {
	mu         sync.RWMutex
	young, old map[digest]grant
}

func newCache() *cache {
	c := new(cache)
	for i := range c {
		c[i].young, c[i].old = make(map[digest]grant), make(map[digest]grant)
	}
	return c
}

func (c *cache) shard(d digest) *shard { return &c[d[0]%cacheShards] }

func (c *cache) get(d digest) (g grant, found bool) {
	s := c.shard(d)
	s.mu.RLock()
	g, young := s.young[d]
	if !young {
		g, found = s.old[d]
	}
	s.mu.RUnlock()
	if found {
		c.add(d, g) // or it would go with the old generation, though in use
	}
	return g, young || found
}

func (c *cache) add(d digest, g grant) {
	s := c.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.young) >= generationMax {
		s.young, s.old = s.old, s.young
		clear(s.young)
	}
	s.young[d] = g
}
