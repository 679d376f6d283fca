//go:build !unix || solaris || aix

package sqlitefile

import "os"

// Without flock(2) processes compete for the write lock alone.
const canLock = false

func tryLock(*os.File) bool { return true }
func unlock(*os.File)       {}
