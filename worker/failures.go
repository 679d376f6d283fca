package worker

import (
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what a failureLog remembers. A record is at most some 450 bytes (an ID of
// 128, 16 times of 24), so that the log of a queue stays below 2 MiB.
const (
	maxFailing      = 4096 // messages
	maxFailures     = 16   // times of one message; a dead letter names the last 5
	failingPerPurge = maxFailing / 8
)

// failureLog remembers of messages that were not completed in this process when they
// failed, so that a dead letter can say so, and which of their deliveries had an outcome.
// At its bound it forgets an eighth of the messages, any ones, which costs each new
// message constant time.
type failureLog struct {
	none atomic.Bool // of is empty, as while all goes well; written under mu
	mu   sync.Mutex  // guards what follows
	of   map[string]failing
}

// failing is a message that was not completed.
type failing struct {
	at    []time.Time // of its failures
	count int         // of the last delivery that had an outcome here
}

func newFailureLog() *failureLog { return &failureLog{of: make(map[string]failing)} }

// note keeps that a delivery had an outcome.
func (l *failureLog) note(id string, count int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.get(id)
	f.count = max(f.count, count)
	l.put(id, f)
}

// noteFailure keeps when a message failed.
func (l *failureLog) noteFailure(id string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.get(id)
	f.at = append(f.at, now)
	f.at = f.at[max(0, len(f.at)-maxFailures):]
	l.put(id, f)
}

// get returns the record of a message, for which it makes room. Called under mu.
func (l *failureLog) get(id string) failing {
	f, ok := l.of[id]
	if !ok && len(l.of) >= maxFailing {
		n := 0
		for old := range l.of {
			delete(l.of, old)
			if n++; n == failingPerPurge {
				break
			}
		}
	}
	return f
}

// put is called under mu.
func (l *failureLog) put(id string, f failing) {
	l.of[id] = f
	l.none.Store(false)
}

func (l *failureLog) times(id string) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]time.Time(nil), l.of[id].at...)
}

// suspect reports whether the delivery before this one left no outcome here: the message
// may have ended its process, or outlasted its lock.
func (l *failureLog) suspect(id string, count int) bool {
	if count < 2 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[id].count < count-1
}

func (l *failureLog) forget(id string) {
	if l.none.Load() { // each message that is completed comes here
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.of, id)
	l.none.Store(len(l.of) == 0)
}
