package main

import (
	"time"

	"stampede/engine"
)

// leadMax is by how much a partition's clock may lead the TIME of Redis before that is a warning. NTP corrects less than
// that without a step.
const leadMax = time.Second

const clockLeads = "its clock leads the TIME of Redis by more than a second: that was set back, or Redis was restored from data " +
	"that is ahead of it; the clock runs at half speed until TIME has caught up, and unpaid orders are held for up to twice their " +
	"time meanwhile: check NTP on the server of Redis (stampede_partition_clock_lead_seconds says by how much it leads)"

// leadingClocks are warnings about partitions whose clock leads Redis' TIME, as of the last look at their doors.
func leadingClocks(e *engine.Engine) (warnings []string) {
	leads := make([]string, e.Keys().Partitions())
	for p := range leads {
		if e.ClockLead(p) > leadMax {
			leads[p] = clockLeads
		}
	}
	return lines(engine.ByPartition(leads), "")
}
