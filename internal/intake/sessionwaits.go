package intake

import (
	"crypto/sha256"
	"sync"
	"time"
)

// waitMemory is for how many horizons a wait of a session is remembered: an attacker who
// can only send holds a session up for a quarter of the time at most.
const waitMemory = 4

// maxWaits bounds how many sessions are remembered: some 100 bytes each.
const maxWaits = 4096

// sessionSum stands for a session ID, which a broker can make as long as it likes.
type sessionSum [sha256.Size]byte

// SessionWaits bounds for how long messages of a session may hold it up because a key or
// version is not known: once for a horizon, and not once for each message. It is safe
// for concurrent use.
type SessionWaits struct {
	mu sync.Mutex // guards what follows
	// By session: when its first message that blocked was enqueued. Once newer is full
	// it becomes older, whose waits are forgotten.
	newer, older map[sessionSum]time.Time
}

// Block notes that a message of the session must wait, and returns for how much longer it
// may. Zero: the wait of its session is over. enqueued is when the broker took the
// message, zero if it does not tell; horizon is above zero.
func (w *SessionWaits) Block(session string, enqueued, now time.Time, horizon time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := sessionSum(sha256.Sum256([]byte(session)))
	begin, ok := w.newer[sum]
	if !ok {
		begin, ok = w.older[sum]
	}
	if !ok || now.Sub(begin) >= waitMemory*horizon {
		begin = enqueued
		if begin.IsZero() || begin.After(now) {
			begin = now // also a broker that names the future gets one horizon
		}
		w.remember(sum, begin)
	}
	return max(begin.Add(horizon).Sub(now), 0)
}

func (w *SessionWaits) remember(sum sessionSum, begin time.Time) {
	if _, known := w.newer[sum]; !known && (w.newer == nil || len(w.newer) >= maxWaits/2) {
		w.newer, w.older = make(map[sessionSum]time.Time), w.newer
	}
	w.newer[sum] = begin
}
