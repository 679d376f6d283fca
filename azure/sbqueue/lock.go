package sbqueue

import "time"

// This file decides when a lock ends. The broker tells the end by its own clock,
// which may differ from this machine's by more than a lock. So the end is counted
// here: from the receipt of the message or session, or from before a renewal was
// asked for, by the monotonic clock, for as long as the queue locks.

// minLock is the shortest lock duration that Service Bus takes (Service Bus
// quotas); no lock ends earlier, whatever the broker's clock seems to say.
const minLock = 5 * time.Second

// lockTime is the lock duration of a queue.
type lockTime struct {
	duration time.Duration
	// assumed: neither QueueOptions nor the management API told the duration. The
	// queue's own may then be shorter, and the end that the broker tells is the only
	// sign of it.
	assumed bool
}

// newLockTime returns the lock time of a queue with this setting; 0 means that it
// is not known.
func newLockTime(setting time.Duration) lockTime {
	if setting == 0 {
		return lockTime{duration: DefaultLock, assumed: true}
	}
	return lockTime{duration: setting}
}

// end returns when a lock ends that was granted at a time by this machine's clock,
// monotonic reading included. toldUntil is the end by the broker's clock, zero if it told
// none. It counts only for an assumed duration, and only within minLock and that
// duration: it can make this receiver renew earlier than it must, and never takes a
// lock for over that the broker still holds.
func (l lockTime) end(granted, toldUntil time.Time) time.Time {
	if !l.assumed || toldUntil.IsZero() {
		return granted.Add(l.duration)
	}
	return granted.Add(min(max(toldUntil.Sub(granted), minLock), l.duration))
}
