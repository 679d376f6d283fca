package docs_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/keys/keytest"
)

// Folder is a keys.Provider of a folder, as orchestrators mount secrets into
// one: ID.key holds 32 bytes in base64, and current holds the ID of the key to
// seal with. It is safe for concurrent use.
type Folder struct {
	path  string
	given keys.Given // every key that was asked for
}

// read returns a file of the folder. That the file is not there is
// keys.ErrNotFound; anything else that can go wrong is keys.ErrUnavailable,
// the absence of the whole folder included.
func (f *Folder) read(name string) ([]byte, error) {
	root, err := os.OpenRoot(f.path) // no name can lead out of it
	if err != nil {
		return nil, fmt.Errorf("folder: %w: %w", keys.ErrUnavailable, err)
	}
	defer root.Close() //nolint:errcheck // nothing was written
	text, err := root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("folder: %w: no file %s", keys.ErrNotFound, name)
	}
	if err != nil {
		clear(text)
		return nil, fmt.Errorf("folder: %w: %w", keys.ErrUnavailable, err)
	}
	return text, nil
}

// GetKey implements keys.Provider.
func (f *Folder) GetKey(_ context.Context, id keys.ID) (*keys.Key, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if strings.Contains(string(id), "/") {
		return nil, fmt.Errorf("folder: %w: %s cannot be the name of a file", keys.ErrNotFound, id)
	}
	text, err := f.read(string(id) + ".key")
	defer clear(text)
	switch {
	case errors.Is(err, keys.ErrNotFound):
		f.given.Drop(id) // retired
		return nil, err
	case err != nil:
		return nil, err
	}
	secret := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	defer clear(secret)
	n, err := base64.StdEncoding.Strict().Decode(secret, trim(text))
	if err != nil {
		// Without err, which quotes the secret.
		return nil, fmt.Errorf("folder: %w: %s.key is not base64", keys.ErrInvalidKey, id)
	}
	k, err := keys.New(id, secret[:n], nil)
	if err != nil {
		return nil, err
	}
	if k, err = f.given.Take(k); err != nil {
		return nil, fmt.Errorf("folder: %s.key: %w", id, err)
	}
	return k, nil
}

// CurrentKeyID implements keys.Provider.
func (f *Folder) CurrentKeyID(context.Context) (keys.ID, error) {
	text, err := f.read("current")
	if err != nil {
		return "", err
	}
	id := keys.ID(trim(text))
	if err := id.Validate(); err != nil {
		return "", err
	}
	return id, nil
}

// ValidKeyIDs implements keys.Provider.
func (f *Folder) ValidKeyIDs(context.Context) ([]keys.ID, error) {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return nil, fmt.Errorf("folder: %w: %w", keys.ErrUnavailable, err)
	}
	var ids []keys.ID
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".key"); ok && keys.ID(id).Validate() == nil {
			ids = append(ids, keys.ID(id))
		}
	}
	return ids, nil
}

// trim cuts the newline that editors leave, without copying the secret.
func trim(text []byte) []byte {
	for len(text) > 0 && (text[len(text)-1] == '\n' || text[len(text)-1] == '\r') {
		text = text[:len(text)-1]
	}
	return text
}

func TestFolder(t *testing.T) {
	keytest.Run(t, keytest.Options{
		NoTimes: true,
		Open: func(t *testing.T, c keytest.Content) keytest.Backing {
			path := filepath.Join(t.TempDir(), "keys")
			if err := fill(path, c); err != nil {
				t.Fatal(err)
			}
			return keytest.Backing{
				Provider: &Folder{path: path},
				Replace:  func(c keytest.Content) error { return fill(path, c) },
				Break: func(broken bool) {
					from, to := path, path+".gone"
					if !broken {
						from, to = to, from
					}
					if err := os.Rename(from, to); err != nil {
						t.Fatal(err)
					}
				},
			}
		},
	})
}

func TestCachedFolder(t *testing.T) {
	keytest.Run(t, keytest.Options{
		NoTimes: true,
		Bubble:  true,
		Open: func(t *testing.T, c keytest.Content) keytest.Backing {
			path := t.TempDir()
			if err := fill(path, c); err != nil {
				t.Fatal(err)
			}
			cached, err := cachedFolder(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := cached.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
			return keytest.Backing{
				Provider: cached,
				Replace: func(c keytest.Content) error {
					defer time.Sleep(time.Hour) // past every time to live
					return fill(path, c)
				},
			}
		},
	})
}

func cachedFolder(path string) (*keys.Cached, error) {
	provider, err := keys.NewCached(&Folder{path: path}, &keys.CachedOptions{
		TTL:      5 * time.Minute,  // how long until a new current key is sealed with
		MaxStale: 30 * time.Minute, // the outage of the store that you want to survive
	})
	return provider, err
}

// fill makes the folder hold these keys and no others. New files are there
// before current names them, and old ones go last, as in a rotation.
func fill(path string, c keytest.Content) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	want := make(map[string]bool)
	for _, m := range c.Keys {
		name := string(m.ID) + ".key"
		want[name] = true
		if err := write(filepath.Join(path, name), base64.StdEncoding.EncodeToString(m.Secret)+"\n"); err != nil {
			return err
		}
	}
	if c.Current != "" {
		want["current"] = true
		if err := write(filepath.Join(path, "current"), string(c.Current)+"\n"); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !want[e.Name()] {
			if err := os.Remove(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// write replaces a file in one step.
func write(name, text string) error {
	if err := os.WriteFile(name+"~", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(name+"~", name)
}
