package kvkeys

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// How long a vault is left alone that throttles: as long as it says, within
// bounds, or for the window of its limits (2,000 requests in 10 seconds; Key
// Vault service limits).
const (
	throttleDefault = 10 * time.Second
	throttleLeast   = time.Second
	throttleMost    = 5 * time.Minute
)

// throttle keeps every call away from a vault until it is to be asked again, and
// then lets one through that finds out whether all may. The zero throttle is open.
type throttle struct {
	mu     sync.Mutex
	until  time.Time // zero means open
	asking bool      // a call is probing the vault
}

// enter says for how long the caller has to stay away: 0 if it may call. After its
// call it leaves, with leave.
func (t *throttle) enter() (left time.Duration, probe bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch left := time.Until(t.until); {
	case t.until.IsZero():
		return 0, false
	case left > 0:
		return left, false
	case t.asking:
		return throttleLeast, false
	}
	t.asking = true
	return 0, true
}

// leave ends a probe. If the vault throttled it, the throttle has been closed before.
func (t *throttle) leave(probe bool) {
	if !probe {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asking = false
	if time.Until(t.until) <= 0 {
		t.until = time.Time{}
	}
}

// close keeps calls away for d, or for longer if that was so already, and returns
// for how long. 0 means the default.
func (t *throttle) close(d time.Duration) time.Duration {
	if d == 0 {
		d = throttleDefault
	}
	now := time.Now()
	until := now.Add(min(max(d, throttleLeast), throttleMost))
	t.mu.Lock()
	defer t.mu.Unlock()
	if until.After(t.until) {
		t.until = until
	}
	return t.until.Sub(now)
}

// retryAfter reads how long an answer asks to wait (RFC 9110, Section 10.2.3, and
// Azure's own headers in milliseconds); 0 if it does not say.
func retryAfter(r *http.Response) time.Duration {
	if r == nil {
		return 0
	}
	for _, name := range []string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"} {
		if n, err := strconv.ParseUint(r.Header.Get(name), 10, 31); err == nil && n > 0 {
			return time.Duration(n) * time.Millisecond
		}
	}
	v := r.Header.Get("Retry-After")
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}
