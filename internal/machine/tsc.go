package machine

import (
	"time"
)

// tscWindow is how long the counter is watched: long enough that being
// interrupted changes little.
const tscWindow = 20 * time.Millisecond

// TSCKHz measures how often in a millisecond the processor's time stamp counter
// counts, which under TCG is the guest's too. It is 0 where there is none.
func TSCKHz() int64 {
	first, start := counter64(), time.Now()
	if first == 0 {
		return 0
	}
	time.Sleep(tscWindow)
	// The reading of the clock that is nearest to one of the counter's counts.
	best, gap := int64(0), time.Hour
	for range 16 {
		before := time.Now()
		now := counter64()
		if d := time.Since(before); d < gap {
			gap, best = d, int64(float64(now-first)/(float64(before.Sub(start))/float64(time.Millisecond)))
		}
	}
	return best
}
