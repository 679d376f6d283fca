package keys

import "time"

// CacheEventKind says what happened in a Cached.
type CacheEventKind int

const (
	// CacheHit reports an answer from memory.
	CacheHit CacheEventKind = iota + 1
	// CacheMiss reports that the caller has to wait for the provider.
	CacheMiss
	// CacheUnknown reports that an ID outside of the list was refused without
	// asking the provider.
	CacheUnknown
	// CacheStale reports that the provider fails and that the caller got an
	// answer whose time to live is over.
	CacheStale
	// CacheFetch reports that the provider answered a request, made for a caller
	// or in the background.
	CacheFetch
	// CacheError reports that a request to the provider failed, with the error in
	// Err. A key that does not exist (ErrNotFound) counts as a failure.
	CacheError
)

// String returns hit, miss, unknown, stale, fetch or error.
func (k CacheEventKind) String() string {
	switch k {
	case CacheHit:
		return "hit"
	case CacheMiss:
		return "miss"
	case CacheUnknown:
		return "unknown"
	case CacheStale:
		return "stale"
	case CacheFetch:
		return "fetch"
	case CacheError:
		return "error"
	}
	return "invalid"
}

// CacheEvent is one thing that happened in a Cached.
type CacheEvent struct {
	Kind CacheEventKind
	// Call is the method of Provider that it is about: GetKey, CurrentKeyID or
	// ValidKeyIDs.
	Call string
	// ID is what GetKey was asked for. With CacheUnknown it is the attacker's choice: not
	// for a metric label.
	ID ID
	// Took is how long the provider took; of CacheFetch and CacheError.
	Took time.Duration
	// Err is why; of CacheStale and CacheError.
	Err error
}
