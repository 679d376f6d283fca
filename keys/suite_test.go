package keys_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/keys/keytest"
)

func make1(t *testing.T, m keytest.Material) *keys.Key {
	t.Helper()
	o := &keys.Options{Created: m.Created, Expires: m.Expires, Queues: m.Queues}
	k, err := keys.New(m.ID, m.Secret, o)
	if m.Sender != "" {
		k, err = keys.NewSender(m.ID, m.Sender, m.Secret, o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fillRing brings a ring to that content, step by step as an operator does.
func fillRing(t *testing.T, r *keys.Ring, c keytest.Content) error {
	for _, m := range c.Keys {
		err := r.Add(make1(t, m))
		if k, getErr := r.GetKey(context.Background(), m.ID); err != nil && (getErr != nil || !k.Equal(make1(t, m))) {
			return err
		}
	}
	if c.Current != "" {
		if err := r.SetCurrent(c.Current); err != nil {
			return err
		}
	}
	for _, id := range r.IDs() {
		if !slices.ContainsFunc(c.Keys, func(m keytest.Material) bool { return m.ID == id }) {
			if err := r.Remove(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestRingSuite is for a Ring alone and behind a cache, which must not be told
// from it.
func TestRingSuite(t *testing.T) {
	for name, front := range map[string]func(*testing.T, *keys.Ring) keys.Provider{
		"alone": func(_ *testing.T, r *keys.Ring) keys.Provider { return r },
		"cached": func(t *testing.T, r *keys.Ring) keys.Provider {
			c, err := keys.NewCached(r, nil)
			must(t, err)
			t.Cleanup(func() { must(t, c.Close(context.Background())) })
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			keytest.Run(t, keytest.Options{SenderKeys: true, Open: func(t *testing.T, c keytest.Content) keytest.Backing {
				r := new(keys.Ring)
				must(t, fillRing(t, r, c))
				return keytest.Backing{Provider: front(t, r), Replace: func(c keytest.Content) error { return fillRing(t, r, c) }}
			}})
		})
	}
}

// envOf writes content as NewEnv reads it, half in each way.
func envOf(t *testing.T, c keytest.Content) {
	t.Helper()
	all := ""
	for i, m := range c.Keys {
		id := string(m.ID)
		if m.Sender != "" {
			id += "@" + m.Sender
		}
		entry := id + "=" + base64.StdEncoding.EncodeToString(m.Secret)
		if i%2 == 0 {
			all += entry + ", "
		} else {
			t.Setenv(fmt.Sprintf("QRT_TEST_KEY_%d", i), entry)
		}
	}
	t.Setenv("QRT_TEST", all)
	t.Setenv("QRT_TEST_CURRENT", string(c.Current))
}

func TestEnvSuite(t *testing.T) {
	keytest.Run(t, keytest.Options{NoTimes: true, SenderKeys: true, Open: func(t *testing.T, c keytest.Content) keytest.Backing {
		envOf(t, c)
		e, err := keys.NewEnv("QRT_TEST")
		if err != nil {
			t.Fatal(err)
		}
		return keytest.Backing{Provider: e}
	}})
}

// writeFile brings a key file to that content, through UpdateFile.
func writeFile(t *testing.T, path string, c keytest.Content) error {
	return keys.UpdateFile(path, func(s *keys.Set) error {
		s.Current = c.Current
		old := s.Keys
		s.Keys = nil
		for _, m := range c.Keys {
			k := make1(t, m)
			if i := slices.IndexFunc(old, func(o *keys.Key) bool { return k.Equal(o) && k.Alike(o) }); i >= 0 {
				k = old[i]
			}
			s.Keys = append(s.Keys, k)
		}
		return nil
	})
}

func TestFileSuite(t *testing.T) {
	keytest.Run(t, keytest.Options{SenderKeys: true, Queues: true, Open: func(t *testing.T, c keytest.Content) keytest.Backing {
		path := filepath.Join(t.TempDir(), "keys.json")
		if err := writeFile(t, path, c); err != nil {
			t.Fatal(err)
		}
		f, err := keys.OpenFile(path, &keys.FileOptions{CheckEvery: 1})
		if err != nil {
			t.Fatal(err)
		}
		return keytest.Backing{
			Provider: f,
			Replace:  func(c keytest.Content) error { return writeFile(t, path, c) },
			Break: func(broken bool) {
				mode := os.FileMode(0o600)
				if broken {
					mode = 0o644
				}
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
			},
		}
	}})
}

// flaky is a provider whose store can fail; without a sentinel, as stores do.
type flaky struct {
	keys.Ring
	fail func() error
}

func (f *flaky) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	return f.Ring.GetKey(ctx, id)
}

func (f *flaky) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	if err := f.fail(); err != nil {
		return "", err
	}
	return f.Ring.CurrentKeyID(ctx)
}

func (f *flaky) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	return f.Ring.ValidKeyIDs(ctx)
}

func TestCachedSuite(t *testing.T) {
	keytest.Run(t, keytest.Options{Bubble: true, SenderKeys: true, Open: func(t *testing.T, c keytest.Content) keytest.Backing {
		var failing atomic.Bool
		inner := &flaky{fail: func() error {
			if failing.Load() {
				return errors.New("connection refused")
			}
			return nil
		}}
		if err := fillRing(t, &inner.Ring, c); err != nil {
			t.Fatal(err)
		}
		p, err := keys.NewCached(inner, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return keytest.Backing{
			Provider: p,
			Replace: func(c keytest.Content) error {
				err := fillRing(t, &inner.Ring, c)
				time.Sleep(5*time.Minute + time.Second)
				return err
			},
			Break: func(broken bool) {
				failing.Store(broken)
				time.Sleep(5*time.Minute + time.Second)
				// Until it has asked again it goes on with what it has, and no
				// caller waits for that.
				_, _ = p.ValidKeyIDs(t.Context())
				time.Sleep(time.Second)
			},
		}
	}})
}
