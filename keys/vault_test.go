package keys_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/keys"
)

// vault is a secret store that counts what it is asked, takes its time, and
// fails when told to.
type vault struct {
	mu      sync.Mutex // guards what follows
	keys    map[keys.ID]*keys.Key
	current keys.ID
	takes   time.Duration
	deaf    bool // heeds no answer but the end of the context
	stolid  bool // does not heed the context either
	err     error
	broken  map[string]error // by method
	hidden  keys.ID          // not in the list, though it is there
	calls   map[string]int   // by method, and GetKey by ID, too
}

func newVault(ks ...*keys.Key) *vault {
	v := &vault{keys: make(map[keys.ID]*keys.Key), calls: make(map[string]int), takes: 50 * time.Millisecond}
	for _, k := range ks {
		v.keys[k.ID()] = k
	}
	if len(ks) > 0 {
		v.current = ks[0].ID()
	}
	return v
}

// set changes the vault.
func (v *vault) set(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

func (v *vault) count(call string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.calls[call]
}

func (v *vault) total() int {
	return v.count("GetKey") + v.count("CurrentKeyID") + v.count("ValidKeyIDs")
}

func (v *vault) ask(ctx context.Context, calls ...string) error {
	v.mu.Lock()
	for _, c := range calls {
		v.calls[c]++
	}
	takes, deaf, stolid := v.takes, v.deaf, v.stolid
	v.mu.Unlock()
	if stolid {
		time.Sleep(takes)
	}
	if deaf {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.broken[calls[0]]; err != nil {
		return err
	}
	return v.err
}

func (v *vault) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	if err := v.ask(ctx, "GetKey", string(id)); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if k, ok := v.keys[id]; ok {
		return k, nil
	}
	return nil, fmt.Errorf("vault: %w: %s", keys.ErrNotFound, id)
}

func (v *vault) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	if err := v.ask(ctx, "CurrentKeyID"); err != nil {
		return "", err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.current == "" {
		return "", fmt.Errorf("vault: %w: no current key", keys.ErrNotFound)
	}
	return v.current, nil
}

func (v *vault) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	if err := v.ask(ctx, "ValidKeyIDs"); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var ids []keys.ID
	for id := range v.keys {
		if id != v.hidden {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// cachedIn runs f in a bubble with a vault of the keys a (current) and b and a
// cache in front of it, and checks that Close leaves nothing running: else the
// bubble would not end.
func cachedIn(t *testing.T, o *keys.CachedOptions, f func(t *testing.T, v *vault, c *keys.Cached)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		v := newVault(mustKey(t, "a", 1), mustKey(t, "b", 2))
		c, err := keys.NewCached(v, o)
		if err != nil {
			t.Fatal(err)
		}
		f(t, v, c)
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func wantKey(t *testing.T, p keys.Provider, id keys.ID) *keys.Key {
	t.Helper()
	k, err := p.GetKey(t.Context(), id)
	if err != nil {
		t.Fatalf("GetKey(%s): %v", id, err)
	}
	return k
}

func wantCurrent(t *testing.T, p keys.Provider, want keys.ID) {
	t.Helper()
	if id, err := p.CurrentKeyID(t.Context()); err != nil || id != want {
		t.Errorf("CurrentKeyID: %q, %v; want %q", id, err, want)
	}
}

func wantCalls(t *testing.T, v *vault, call string, want int) {
	t.Helper()
	if got := v.count(call); got != want {
		t.Errorf("the provider was asked %d times for %s, want %d", got, call, want)
	}
}
