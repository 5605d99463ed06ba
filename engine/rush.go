package engine

import (
	"sync/atomic"
	"time"
)

// Rush: more buyers press at once than Redis is asked in calls. The measure is how full recent calls were, which neither a
// slow disk nor a far Redis mistakes for a crowd, as a measure of time would.
const (
	rushShare   = 8   // calls of an eighth of BatchMax on average are a rush
	rushMemory  = 8   // calls over which the average forgets
	rushLastsMS = 250 // without a call it is over
	rushUnit    = 16  // of the average, which is a fixed-point number
)

// crowd averages the sizes of recent calls. Two workers note at once; an update that is lost changes nothing that counts.
type crowd struct {
	average atomic.Int64 // operations a call, times rushUnit
	at      atomic.Int64 // of the last call, Unix ms
}

func (c *crowd) note(operations int) {
	old := c.average.Load()
	c.average.Store(old + (int64(operations)*rushUnit-old)/rushMemory)
	c.at.Store(time.Now().UnixMilli())
}

// Rush tells whether a partition is in a rush: then what can wait should leave the machine to the sale.
func (e *Engine) Rush(partition int) bool {
	c := &e.partitions[partition].crowd
	return c.average.Load() >= int64(e.cfg.BatchMax)*rushUnit/rushShare && time.Now().UnixMilli()-c.at.Load() < rushLastsMS
}
