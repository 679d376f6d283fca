package keys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// resolve follows symbolic links, so that the file is replaced and not the link.
func resolve(path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return target, err
}

// replace writes data to f and puts it in the place of target, for good: after a
// power cut there is the old file or the new one. old is what is there now; nil
// if nothing is. It closes f, and reports whether f is in the place, which it
// may be though syncing the folder failed.
func replace(f *os.File, data []byte, target string, old fs.FileInfo) (bool, error) {
	err := keepOwner(f, old)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), target)
	}
	if err != nil {
		return false, err
	}
	if runtime.GOOS == "windows" { // where folders cannot be synced
		return true, nil
	}
	dir, err := os.Open(filepath.Dir(target))
	if err != nil {
		return true, err
	}
	err = dir.Sync()
	if e := dir.Close(); err == nil {
		err = e
	}
	return true, err
}
