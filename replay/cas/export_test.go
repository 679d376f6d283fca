package cas

import "time"

// Shift moves the clock of this handle.
func (s *Store) Shift(d time.Duration) { s.engine.shift = d }
