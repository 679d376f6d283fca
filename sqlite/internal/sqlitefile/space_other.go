//go:build !linux && !darwin

package sqlitefile

// diskSpace knows no way to ask on this system.
func diskSpace(string) (free, total int64, ok bool) { return 0, 0, false }
