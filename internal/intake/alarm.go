package intake

import (
	"sync"
	"time"
)

// AlarmInterval is the time in which Alarm counts, and the least time between two alarms.
const AlarmInterval = time.Minute

// Alarm tells when messages are dead-lettered unread faster than a few by chance: a flood
// of forgeries or garbage, which buries the dead letters that matter. The zero Alarm is
// not usable: set Limit. It is safe for concurrent use.
type Alarm struct {
	Limit int // how many in AlarmInterval raise it; at least 1

	mu     sync.Mutex // guards what follows
	begin  time.Time  // of the interval that is counted
	count  int        // in it
	raised bool       // the interval before it had Limit
	told   time.Time  // when the alarm was raised last
	untold int        // counted since
}

// Count notes one message. If the alarm is to be raised now it returns how many there were
// since the last time, otherwise 0.
func (a *Alarm) Count(now time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.begin.IsZero() || now.Sub(a.begin) >= AlarmInterval {
		a.raised = a.count >= a.Limit && now.Sub(a.begin) < 2*AlarmInterval
		if !a.raised {
			a.untold = 0
		}
		a.begin, a.count = now, 0
	}
	a.count++
	a.untold++
	if a.count < a.Limit && !a.raised || !a.told.IsZero() && now.Sub(a.told) < AlarmInterval {
		return 0
	}
	n := a.untold
	a.told, a.untold = now, 0
	return n
}
