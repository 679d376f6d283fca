package sqlitereplay

import "time"

// Shift moves the clock of this handle.
func (s *Store) Shift(d time.Duration) { s.engine.shift = d }

// Commits returns how many transactions were committed, and how many of them
// waited for the disk.
func (s *Store) Commits() (all, synced int64) { return s.engine.file.Commits() }

// CacheSize returns how many streams and pages are remembered. No call may be under way.
func (s *Store) CacheSize() int { return s.engine.cache.size }

// CacheLimit bounds it, but for what the last call has loaded.
const CacheLimit = cacheLimit
