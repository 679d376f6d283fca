package connect

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// Config says what to open, each by URL.
type Config struct {
	Broker      string // the broker; needed
	Keys        string // empty means none
	ReplayStore string // empty means none

	// KeyCache is for the cache in front of a secret store, as OpenKeysCached has
	// it. Nil means its defaults.
	KeyCache *keys.CachedOptions
}

// Set is what [Open] opened.
type Set struct {
	// Broker is for queue.New, whose Client then owns it.
	Broker driver.Broker
	// Keys is nil if Config.Keys is empty.
	Keys *keys.Cached
	// ReplayStore is nil if Config.ReplayStore is empty.
	ReplayStore *ReplayStore
}

// Close closes all three, each until ctx ends, and returns what failed, joined. A broker
// that a Client has closed already is closed once more, which does nothing.
func (s *Set) Close(ctx context.Context) error {
	var errs []error
	if s.Broker != nil {
		errs = append(errs, s.Broker.Close(ctx))
	}
	if s.ReplayStore != nil {
		errs = append(errs, s.ReplayStore.Close(ctx))
	}
	if s.Keys != nil {
		errs = append(errs, s.Keys.Close(ctx))
	}
	return errors.Join(errs...)
}

// Open opens everything that c names. It fails with [ErrWithinReach] if the replay store
// lies with the broker: an attacker who controls the broker could then make the store
// forget, and replay. After an error nothing stays open.
func Open(ctx context.Context, c Config) (*Set, error) {
	if c.Broker == "" {
		return nil, errors.New("connect: no broker: set Config.Broker to a URL such as sqlite:///var/lib/app/queue.db")
	}
	if err := CheckReach(c.Broker, c.ReplayStore); err != nil {
		return nil, err
	}
	s := &Set{}
	err := s.open(ctx, c)
	if err != nil {
		_ = s.Close(context.WithoutCancel(ctx)) // the first error is the one that tells
		return nil, err
	}
	return s, nil
}

func (s *Set) open(ctx context.Context, c Config) (err error) {
	if s.Broker, err = OpenBroker(ctx, c.Broker); err != nil {
		return err
	}
	if c.Keys != "" {
		if s.Keys, err = OpenKeysCached(ctx, c.Keys, c.KeyCache); err != nil {
			return err
		}
	}
	if c.ReplayStore != "" {
		if s.ReplayStore, err = OpenReplayStore(ctx, c.ReplayStore); err != nil {
			return err
		}
		// Once more: now the file is there, and a link to the queue's is seen.
		if err := CheckReach(c.Broker, c.ReplayStore); err != nil {
			return err
		}
		// A database can have several names.
		if name := s.ReplayStore.Database(); name != "" && name == databaseOf(s.Broker) && !s.ReplayStore.TrustsDatabaseOperators() {
			return within(ownDatabase)
		}
	}
	return nil
}

// databaseOf names the database that something lies in, "" if it does not say.
func databaseOf(what any) string {
	if d, ok := what.(interface{ Database() string }); ok {
		return d.Database()
	}
	return ""
}

// ReplayStore is a replay.Store that can be closed.
type ReplayStore struct {
	replay.Store
	close func(context.Context) error // nil means there is nothing to release
}

// Database names the database that the store lies in, "" if it lies in none. queue.New
// refuses a broker that returns the same, unless TrustsDatabaseOperators returns true.
func (n *ReplayStore) Database() string { return databaseOf(n.Store) }

// TrustsDatabaseOperators reports whether the URL of the store says so.
func (n *ReplayStore) TrustsDatabaseOperators() bool {
	t, ok := n.Store.(interface{ TrustsDatabaseOperators() bool })
	return ok && t.TrustsDatabaseOperators()
}

// Close releases what the store holds. A second Close does nothing.
func (n *ReplayStore) Close(ctx context.Context) error {
	if n.close == nil {
		return nil
	}
	release := n.close
	n.close = nil
	return release(ctx)
}

// ErrUnknownScheme means that this package does not know the scheme of a URL.
var ErrUnknownScheme = errors.New("unknown scheme")

// unknownScheme returns the error for a URL whose scheme is unknown. It quotes the
// scheme only if that cannot be part of a secret.
func unknownScheme(what, rawURL string, schemes []string) error {
	want := make([]string, len(schemes))
	for i, s := range schemes {
		want[i] = s + "://"
	}
	slices.Sort(want)
	list := strings.Join(want, ", ")
	u, err := url.Parse(rawURL)
	switch {
	case err != nil || u.Scheme == "":
		return fmt.Errorf("connect: %s: %w: this is not a URL; use one of %s", what, ErrUnknownScheme, list)
	case u.Opaque != "" || u.Host == "" && u.Path == "":
		// "key:base64" parses as a URL, too.
		return fmt.Errorf("connect: %s: %w; use one of %s", what, ErrUnknownScheme, list)
	}
	return fmt.Errorf("connect: %s: %w %q; use one of %s", what, ErrUnknownScheme, u.Scheme, list)
}

// schemeOf returns the scheme of rawURL, "" if it is no URL.
func schemeOf(rawURL string) string {
	scheme, _, ok := strings.Cut(rawURL, ":")
	if !ok {
		return ""
	}
	return strings.ToLower(scheme)
}
