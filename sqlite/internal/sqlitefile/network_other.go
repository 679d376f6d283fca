//go:build !linux

package sqlitefile

// refuseNetwork knows no way to ask on this system; the documentation warns.
func refuseNetwork(string) error { return nil }
