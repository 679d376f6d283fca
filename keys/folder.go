package keys

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/queue-runtime/queue/internal/jsonscan"
)

const (
	// currentFile is the file that names the current key.
	currentFile = "current"
	// dataLink is the symbolic link through which the kubelet and the Secrets Store CSI
	// driver swap all files of a mounted folder at once.
	dataLink = "..data"
	// maxFolder bounds the keys of a folder.
	maxFolder = 4096
	// folderTries is how often a folder is read that changes meanwhile.
	folderTries = 10
)

// Folder is a Provider of the keys in a folder, as Kubernetes, the Secrets Store CSI
// driver and Vault's agent mount secrets: one file for each key. Its name is the key
// ID, so that the ID has no slash and does not begin with a dot. It holds one of
//
//   - the secret: 32 bytes in padded standard base64 (RFC 4648, Section 4), and nothing
//     else but a line end,
//   - the key as an element of "keys" in a key file ([File]), whose "id" is the name.
//
// The file "current" holds the ID of the key to seal with; if it is empty, nothing
// seals. Without that file the current key is the last by name: numbers in names are
// compared by their value, so that orders-10 comes after orders-9. Without the file a
// new key is sealed with as soon as it is mounted; with it a key can be mounted
// everywhere first and be made current later. Names that begin with a dot are passed
// over. Any other file that holds no key is an error: give keys a Secret of their own.
//
// Each file must be one that a [File] accepts, and belong to root, to this process's
// user or to the owner of the folder: others may be able to add files to a folder that
// is mounted for all.
//
// The folder is read again when it changes, by the next caller of the provider. If it
// has the symbolic link "..data", all is read from the folder that this names, so that
// an atomic swap is seen whole. What a File does with a change that it cannot take over,
// a Folder does, too. A key whose file is gone is destroyed; if the folder is gone the
// keys known before stay.
type Folder struct{ f *File }

// OpenFolder reads a folder of keys. It fails as OpenFile does; a folder without keys
// is ErrInvalidKey.
func OpenFolder(path string, o *FileOptions) (*Folder, error) {
	r := folderReader{path: path, rule: ruleOf(o)}
	f, err := follow(o, "folder "+path, r.load, r.look)
	if err != nil {
		return nil, err
	}
	return &Folder{f}, nil
}

// GetKey implements Provider. It does not look at ctx: it waits for nothing but
// the file system.
func (f *Folder) GetKey(ctx context.Context, id ID) (*Key, error) { return f.f.GetKey(ctx, id) }

// CurrentKeyID implements Provider. It fails with ErrNotFound if the file "current" is
// empty.
func (f *Folder) CurrentKeyID(ctx context.Context) (ID, error) { return f.f.CurrentKeyID(ctx) }

// ValidKeyIDs implements Provider.
func (f *Folder) ValidKeyIDs(ctx context.Context) ([]ID, error) { return f.f.ValidKeyIDs(ctx) }

// Err returns why the last change of the folder was not taken over; nil if it was.
func (f *Folder) Err() error { return f.f.Err() }

// folderReader reads a folder of keys.
type folderReader struct {
	path string
	rule accessRule
}

// errChanged says that a folder changed while it was read.
var errChanged = errors.New("it changed while it was read")

// load reads all keys of one state of the folder.
func (r folderReader) load() (*Set, snapshot, error) { return whileChanging(r.loadOnce) }

// whileChanging loads once more if the folder changed meanwhile, up to folderTries times.
func whileChanging(load func() (*Set, snapshot, error)) (set *Set, read snapshot, err error) {
	for range folderTries {
		if set, read, err = load(); !errors.Is(err, errChanged) {
			break
		}
	}
	return set, read, err
}

func (r folderReader) loadOnce() (*Set, snapshot, error) {
	at := time.Now()
	before, err := r.look()
	if err != nil {
		if _, e := os.Stat(r.path); e == nil && errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", errChanged, err)
		}
		return nil, before, r.unavailable(err)
	}
	set, err := r.read(before)
	after, lookErr := r.look()
	// Files of a state that was swapped away may be gone, or be of two states.
	if !sameFiles(before, after) {
		err = r.unavailable(errors.Join(errChanged, lookErr))
	}
	if err != nil {
		set.destroy()
		return nil, before, err
	}
	before.at = at
	return set, before, nil
}

// read reads the files of a snapshot. It returns the keys that it made also beside an
// error.
func (r folderReader) read(s snapshot) (*Set, error) {
	set := new(Set)
	named := false
	for _, file := range s.files[1:] {
		name := filepath.Base(file.name)
		err := r.checkOwner(s.files[0].info, file)
		switch {
		case err != nil:
		case file.info.IsDir():
			err = fmt.Errorf("keys: folder %s: %w: %s is a folder", r.path, ErrInvalidKey, name)
		case name == currentFile:
			named = true
			set.Current, err = r.current(file.name)
		default:
			err = r.add(set, file.name)
		}
		if err != nil {
			return set, err
		}
	}
	if !named {
		set.Current = last(set.Keys)
	}
	if err := set.validate(); err != nil {
		return set, fmt.Errorf("keys: folder %s: %w", r.path, err)
	}
	return set, nil
}

// sameFiles reports whether two snapshots are of the same files at the same times.
func sameFiles(a, b snapshot) bool {
	a.at = time.Now().Add(2 * settled) // changes of the last moments are looked for later
	return a.same(b)
}

// look describes the folder that keys are read from, and then each of its files.
func (r folderReader) look() (snapshot, error) {
	path := r.path
	if target, err := filepath.EvalSymlinks(filepath.Join(path, dataLink)); err == nil {
		path = target
	}
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = errors.New("not a folder")
	}
	if err != nil {
		return snapshot{}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return snapshot{}, err
	}
	s := snapshot{files: []fileStamp{{path, info}}}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		name := filepath.Join(path, e.Name())
		info, err := os.Stat(name)
		if err != nil {
			return snapshot{}, err
		}
		if s.files = append(s.files, fileStamp{name, info}); len(s.files) > maxFolder {
			return snapshot{}, fmt.Errorf("more than %d files", maxFolder)
		}
	}
	return s, nil
}

// unavailable is the error of a folder that cannot be read now.
func (r folderReader) unavailable(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) && !errors.Is(err, errChanged) { // the path is said once
		err = fmt.Errorf("%s: %w", pe.Op, pe.Err)
	}
	return fmt.Errorf("keys: folder %s: %w: %w", r.path, ErrUnavailable, err)
}

// checkOwner refuses a file that another user may have put there.
func (r folderReader) checkOwner(folder fs.FileInfo, file fileStamp) error {
	uid, known := ownerOf(file.info)
	of, _ := ownerOf(folder)
	if !known || uid == 0 || uid == os.Geteuid() || uid == of {
		return nil
	}
	return fmt.Errorf("keys: file %s: %w: it belongs to user %d, and neither to root, nor to this process, nor to the owner of the folder", file.name, ErrUnavailable, uid)
}

// current reads the file that names the current key.
func (r folderReader) current(path string) (ID, error) {
	data, _, err := readPrivate(path, r.rule)
	if err != nil {
		return "", err
	}
	text := trimLineEnd(data)
	if len(text) == 0 {
		return "", nil
	}
	if err := validateID(text); err != nil {
		clear(data) // it may be a secret that was put there by mistake
		return "", fmt.Errorf("keys: file %s: %w: it must hold the ID of a key and nothing else", path, ErrInvalidKey)
	}
	return ID(text), nil
}

// add reads a file that holds a key.
func (r folderReader) add(set *Set, path string) error {
	data, _, err := readPrivate(path, r.rule)
	defer clear(data)
	if err != nil {
		return err
	}
	k, err := parseFolderKey(ID(filepath.Base(path)), data)
	if err != nil {
		return fmt.Errorf("keys: file %s: %w", path, err)
	}
	set.Keys = append(set.Keys, k)
	return nil
}

// parseFolderKey reads the key of that name. Its errors repeat nothing of the content.
func parseFolderKey(id ID, data []byte) (*Key, error) {
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("%w: the name of the file must be the ID of its key: 1 to %d bytes of [A-Za-z0-9._:-]", ErrInvalidKey, MaxID)
	}
	text := trimLineEnd(data)
	if len(text) > 0 && text[0] == '{' {
		p := &scanner{jsonscan.Scanner{Data: data}}
		k, err := parseKey(p)
		if err == nil {
			err = p.end()
		}
		if err == nil && k.ID() != id {
			err = fmt.Errorf("%w: the file holds the key %q: name the file so", ErrInvalidKey, clip(k.ID()))
		}
		if err != nil && k != nil {
			k.Destroy()
			k = nil
		}
		return k, err
	}
	secret := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	defer clear(secret)
	n, err := base64.StdEncoding.Strict().Decode(secret, text)
	if err != nil || bytes.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("%w: it holds neither 32 bytes in padded standard base64 nor a key as in a key file", ErrInvalidKey)
	}
	return New(id, secret[:n], nil)
}

// trimLineEnd cuts the line end that editors leave.
func trimLineEnd(text []byte) []byte { return bytes.TrimRight(text, "\r\n") }

// last is the ID that is the last by name; "" without keys.
func last(list []*Key) ID {
	id := ID("")
	for _, k := range list {
		if compareNames(string(k.ID()), string(id)) > 0 {
			id = k.ID()
		}
	}
	return id
}

// compareNames compares names byte by byte, and numbers in them by their value.
func compareNames(a, b string) int {
	zeros := 0 // decides between names that differ in leading zeros only
	for a != "" && b != "" {
		m, n := digits(a), digits(b)
		if m == 0 || n == 0 {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		// Without leading zeros the longer number is the larger one.
		x, y := strings.TrimLeft(a[:m], "0"), strings.TrimLeft(b[:n], "0")
		if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
			return c
		}
		zeros = cmp.Or(zeros, cmp.Compare(m, n))
		a, b = a[m:], b[n:]
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), zeros)
}

// digits is how many digits text begins with.
func digits(text string) int {
	n := 0
	for n < len(text) && '0' <= text[n] && text[n] <= '9' {
		n++
	}
	return n
}
