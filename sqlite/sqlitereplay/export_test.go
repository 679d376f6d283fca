package sqlitereplay

import "time"

// Shift moves the clock of this handle.
func (s *Store) Shift(d time.Duration) { s.engine.shift = d }

// Commits returns how many transactions were committed, and how many of them
// waited for the disk.
func (s *Store) Commits() (all, synced int64) { return s.engine.file.Commits() }
