package dynamoreplay

// InspectNext has the next call look at the table.
func (s *Store) InspectNext() { s.b.inspected.Store(int64(-2 * inspectInterval)) }
