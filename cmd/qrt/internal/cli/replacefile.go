package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// replaceFile puts data into the place of a file, with that mode whatever the mode of a
// file that is there: it writes a file beside it and renames it. What is no regular file,
// such as a pipe or /dev/stdout, is written to.
func replaceFile(path string, data []byte, mode fs.FileMode) (err error) {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		target, err = path, nil
	}
	if err != nil {
		return err
	}
	if info, err := os.Stat(target); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(target, data, mode)
	}
	f, err := os.CreateTemp(filepath.Dir(target), ".qrt-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // again, perhaps
			_ = os.Remove(f.Name())
		}
	}()
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), target)
}
