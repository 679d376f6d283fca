//go:build !unix

package sqlitefile

import "io/fs"

// links knows no way to ask on this system.
func links(fs.FileInfo) uint64 { return 1 }
