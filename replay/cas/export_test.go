package cas

// Observed returns how many claims a Store observes.
func (s *Store) Observed() int {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	return len(s.engine.seen)
}
