package sqlitereplay

import "time"

// Shift moves the clock of this handle.
func (s *Store) Shift(d time.Duration) { s.engine.shift = d }

// Commits returns how many transactions were committed, and how many of them
// waited for the disk.
func (s *Store) Commits() (all, synced int64) { return s.engine.file.Commits() }

// CacheSize returns how many groups, senders, streams and pages are remembered. No call may
// be under way.
func (s *Store) CacheSize() (n int) {
	for _, g := range s.engine.cache.groups {
		n += 1 + len(g.senders) + len(g.streams)
		for _, x := range g.streams {
			n += len(x.pages)
		}
	}
	return n
}

// CacheLimit bounds it, but for what the last call has loaded.
const CacheLimit = cacheLimit

// SweepTime is after how long a call sweeps.
const SweepTime = sweepTime * time.Millisecond
