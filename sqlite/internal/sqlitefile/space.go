package sqlitefile

import (
	"os"
	"path/filepath"
)

// Space is the room on the disk of a file.
type Space struct {
	Free    int64 // bytes that this user may still write
	Reserve int64 // of these, what is left to calls that make room
}

const (
	// maxReserve is for the log, which takes 16 MiB as a rule, and for the file, whose
	// indexes can grow while messages are settled.
	maxReserve = 32 << 20
	// reserveShare bounds the reserve of a small disk: an eighth of it.
	reserveShare = 8
)

// Space asks for the room on the disk; false means that the system does not tell. The file
// is to have so many bytes: what it has less of them lies in the log, and takes room once
// more when it is moved.
func (f *File) Space(bytes int64) (Space, bool) {
	free, total, ok := diskSpace(filepath.Dir(f.path))
	if !ok || total <= 0 {
		return Space{}, false
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return Space{}, false
	}
	return Space{Free: free - max(0, bytes-info.Size()), Reserve: min(maxReserve, total/reserveShare)}, true
}
