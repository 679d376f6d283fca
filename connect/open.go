package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// Config holds the URLs for [Open].
type Config struct {
	Broker      string // required; see BrokerSchemes
	Keys        string // see KeySchemes; empty means no keys
	ReplayStore string // see ReplayStoreSchemes; empty means no replay store

	// KeyCache configures the cache in front of a secret store, as for
	// OpenKeysCached. Nil means the defaults of package keys.
	KeyCache *keys.CachedOptions
}

// Set is what [Open] opened.
type Set struct {
	// Broker is for queue.New, whose Client then owns it.
	Broker driver.Broker
	// Keys is nil if Config.Keys is empty.
	Keys *Keys
	// ReplayStore is nil if Config.ReplayStore is empty.
	ReplayStore *ReplayStore
}

// Close closes all three. If a Client has already closed the broker, that has no
// effect on it.
func (s *Set) Close(ctx context.Context) error {
	var errs []error
	if s.Broker != nil {
		errs = append(errs, s.Broker.Close(ctx))
	}
	if s.ReplayStore != nil {
		errs = append(errs, s.ReplayStore.Close())
	}
	if s.Keys != nil {
		errs = append(errs, s.Keys.Close())
	}
	return errors.Join(errs...)
}

// Open opens everything in c. Its error wraps [ErrWithinReach] if the replay store
// is stored with the broker, whose operator could then delete it and replay
// messages. If Open fails, nothing stays open.
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
		// Check again: the file exists now, so a link to the broker's file is seen.
		return CheckReach(c.Broker, c.ReplayStore)
	}
	return nil
}

// Keys is a keys.Provider that can be closed.
type Keys struct {
	keys.Provider
	closer io.Closer
}

// Close releases the resources of the provider. A second Close does nothing.
func (k *Keys) Close() error { return closeOnce(&k.closer) }

// ReplayStore is a replay store that can be closed.
type ReplayStore struct {
	replay.NonceStore
	closer io.Closer
}

// Close releases the resources of the store. A second Close does nothing.
func (n *ReplayStore) Close() error { return closeOnce(&n.closer) }

func closeOnce(c *io.Closer) error {
	if *c == nil {
		return nil
	}
	closer := *c
	*c = nil
	return closer.Close()
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
		// "key:base64" also parses as a URL.
		return fmt.Errorf("connect: %s: %w; use one of %s", what, ErrUnknownScheme, list)
	}
	return fmt.Errorf("connect: %s: %w %q; use one of %s", what, ErrUnknownScheme, u.Scheme, list)
}

// schemeOf returns the scheme of rawURL in lower case, "" if it has none.
func schemeOf(rawURL string) string {
	scheme, _, ok := strings.Cut(rawURL, ":")
	if !ok {
		return ""
	}
	return strings.ToLower(scheme)
}
