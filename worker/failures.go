package worker

import (
	"sync"
	"time"
)

// Bounds of what a failureLog remembers. A record is at most some 450 bytes (an ID of
// 128, 16 times of 24), so that the log of a queue stays below 2 MiB.
const (
	maxFailing      = 4096 // messages
	maxFailures     = 16   // times of one message; a dead letter names the last 5
	failingPerPurge = maxFailing / 8
)

// failureLog remembers when messages failed in this process, so that a dead letter can
// say so. At its bound it forgets an eighth of the messages, any ones, which costs each
// new message constant time.
type failureLog struct {
	mu sync.Mutex
	at map[string][]time.Time
}

func newFailureLog() *failureLog { return &failureLog{at: make(map[string][]time.Time)} }

func (l *failureLog) note(id string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.at[id]; !ok && len(l.at) >= maxFailing {
		n := 0
		for old := range l.at {
			delete(l.at, old)
			if n++; n == failingPerPurge {
				break
			}
		}
	}
	times := append(l.at[id], now)
	l.at[id] = times[max(0, len(times)-maxFailures):]
}

func (l *failureLog) times(id string) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]time.Time(nil), l.at[id]...)
}

func (l *failureLog) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.at) > 0 {
		delete(l.at, id)
	}
}
