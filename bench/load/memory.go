package load

import "sync"

const rememberedMax = 1 << 14 // orders of a kind; an older one is forgotten for a newer one

// memory is what a scenario remembers of answers, to follow up on them.
type memory struct {
	held, paid orderQueue

	mu    sync.Mutex // guards what follows
	full  []bool     // by user: something lies in the cart
	carts []int      // the users of full, oldest first; each once
}

func newMemory(users int) memory { return memory{full: make([]bool, users)} }

// putCart remembers that a user has something in the cart.
func (m *memory) putCart(user int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.full[user] {
		m.full[user] = true
		m.carts = append(m.carts, user)
	}
}

// takeCart returns the user whose cart was filled first, and forgets it; without any, otherwise.
func (m *memory) takeCart(otherwise int) (user int, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.carts) == 0 {
		return otherwise, false
	}
	user, m.carts = m.carts[0], m.carts[1:]
	m.full[user] = false
	return user, true
}

// orderQueue is orders that wait for what follows, oldest first.
type orderQueue struct {
	mu     sync.Mutex
	orders []remembered
}

type remembered struct {
	user int
	id   string
}

func (q *orderQueue) put(user int, id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.orders) == rememberedMax {
		q.orders = q.orders[1:]
	}
	q.orders = append(q.orders, remembered{user, id})
}

// take returns the oldest order and forgets it; without any, the user otherwise.
func (q *orderQueue) take(otherwise int) (user int, id string, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.orders) == 0 {
		return otherwise, "", false
	}
	first := q.orders[0]
	q.orders = q.orders[1:]
	return first.user, first.id, true
}
