package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// UpdateFile changes a key file, or makes one, so that readers see the old one
// or the new one and nothing between: it writes a file beside it, syncs it, and
// renames it. Its mode is 0600, its owner the old file's; if the group of the
// old file may read it, the new one has that group and mode, too.
//
// change gets what the file holds, the zero Set if there is none, and changes
// it; its error is returned as it is, and then nothing is written. The keys that
// were read are destroyed when UpdateFile returns; added ones stay the caller's.
// A set without keys, with an ID twice, whose current key is missing, or that
// gives an ID another secret is refused with ErrInvalidKey.
//
// The file beside it, path + ".lock", keeps two updates apart: the second fails
// with ErrUnavailable. One that a crash left behind has to be removed by hand.
func UpdateFile(path string, change func(*Set) error) error {
	target, err := resolve(path)
	if err != nil {
		return unavailable(path, err)
	}
	lock, err := os.OpenFile(target+".lock", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keys: file %s: %w: another update is under way; if not, remove %s.lock", path, ErrUnavailable, target)
	}
	if err != nil {
		return unavailable(path, err)
	}
	replaced := false
	defer func() {
		if !replaced {
			_ = lock.Close() // again, perhaps; what counts is that it goes
			_ = os.Remove(lock.Name())
		}
	}()
	old := new(Set)
	read, info, err := readFile(target, ownerOrGroup)
	switch {
	case err == nil:
		old = read
		defer read.destroy()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	set := &Set{Current: old.Current, Keys: slices.Clone(old.Keys)}
	if err := change(set); err != nil {
		return err
	}
	data, err := encodeFile(set)
	if err == nil {
		defer clear(data)
		err = sameSecrets(old, set)
	}
	if err != nil {
		return fmt.Errorf("keys: file %s: %w", path, err)
	}
	if replaced, err = replace(lock, data, target, info); err != nil {
		return unavailable(path, err)
	}
	return nil
}

// sameSecrets refuses an ID that is to name another secret.
func sameSecrets(old, set *Set) error {
	for _, was := range old.Keys {
		for _, k := range set.Keys {
			if k.ID() == was.ID() && !k.Equal(was) {
				return fmt.Errorf("%w: %s named another secret before: give a new key a new ID", ErrInvalidKey, k.ID())
			}
		}
	}
	return nil
}

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
	return true, syncFolder(filepath.Dir(target))
}

func syncFolder(path string) error {
	if runtime.GOOS == "windows" { // where folders cannot be synced
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // nothing was written through it
	return dir.Sync()
}
