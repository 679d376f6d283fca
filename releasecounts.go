package queue

import "sync"

// Bounds of what releases remembers: a record is at most some 200 bytes, so a Receiver
// keeps less than 1 MiB.
const (
	maxReleases        = 4096
	releasesPerPurge   = maxReleases / 8
	maxReleaseBrokerID = 128 // bytes; a longer ID is not remembered
)

// releases counts, by BrokerID, the deliveries that this Receiver gave back unspent on a
// broker that counts them all the same (without Capabilities.ReleaseUncounted). It
// forgets any eighth of the messages when it is full, and all of them with the process:
// their releases then count. It is safe for concurrent use; a nil releases counts none.
type releases struct {
	mu sync.Mutex
	of map[string]int
}

func (r *releases) note(brokerID string) {
	if r == nil || len(brokerID) > maxReleaseBrokerID {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.of[brokerID]; !ok && len(r.of) >= maxReleases {
		n := 0
		for old := range r.of {
			delete(r.of, old)
			if n++; n == releasesPerPurge {
				break
			}
		}
	}
	r.of[brokerID]++
}

// spent is a broker's count without the releases; at least 1, or count if that is less.
func (r *releases) spent(brokerID string, count int) int {
	if r == nil {
		return count
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.of[brokerID]; n > 0 {
		return max(count-n, min(count, 1))
	}
	return count
}

func (r *releases) forget(brokerID string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of, brokerID)
}
