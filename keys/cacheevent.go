package keys

import "time"

// CacheEventKind says what happened in a Cached.
type CacheEventKind int

const (
	// CacheHit: answered from memory.
	CacheHit CacheEventKind = iota + 1
	// CacheMiss: the caller has to wait for the provider.
	CacheMiss
	// CacheUnknown: an ID that is not in the list was refused without asking.
	CacheUnknown
	// CacheStale: the provider fails, and an answer past its time was given.
	CacheStale
	// CacheFetch: the provider was asked, for a caller or in the background,
	// and answered.
	CacheFetch
	// CacheError: the provider was asked and failed. Err says how; that there
	// is no such key (ErrNotFound) is an error here, too.
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
	// ID is that of GetKey. With CacheUnknown it is the attacker's choice: not
	// for a metric label.
	ID ID
	// Took is how long the provider took; of CacheFetch and CacheError.
	Took time.Duration
	// Err is why; of CacheStale and CacheError.
	Err error
}
