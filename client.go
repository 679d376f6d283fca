package queue

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// Options configure a [Client]. The zero value sends and accepts plaintext.
type Options struct {
	// Crypto says whether to seal and what to accept.
	Crypto CryptoConfig

	// Keys are the keys of every queue that KeysFor does not cover. Nil: none.
	Keys keys.Provider

	// KeysFor gives a queue keys of its own; nil, or a nil answer, means Keys.
	// It is called once for each Sender and Receiver.
	KeysFor func(queue string) keys.Provider

	// CryptoProvider seals and opens in place of AESGCM over Keys. Nil: AESGCM.
	// Keys beside it say under which key to seal, and which key IDs of a message
	// reach it; without them every forged one does, and it has to bound itself
	// what that costs.
	CryptoProvider CryptoProvider

	// ReplayStore is the memory of handled messages; needed with Crypto.TrackReplays.
	// It must lie outside the broker's reach and be shared by all receivers of
	// a group. The Client does not close it.
	ReplayStore replay.Store

	// OnStoreLoss says what receivers do if the replay store lost its memory. Zero is
	// StopOnLoss.
	OnStoreLoss StoreLoss

	// Environment names where this runs, as a label of metrics; "production"
	// without encryption is warned about. Empty: "".
	Environment string

	// Logger gets a line for each message sent, received and rejected. Nil:
	// slog.Default at the time of New.
	Logger *slog.Logger

	// Observer is told what happens, for metrics and traces. Nil means none.
	Observer observe.Observer

	// OnRejected is called, from the goroutine that receives, for each message
	// that was received and not delivered. It must neither block, while the
	// messages received with it are locked, nor panic. Nil: none.
	OnRejected func(context.Context, *RejectedError)
}

// Client sends and receives over one broker. It is safe for concurrent use.
type Client struct {
	broker  driver.Broker
	options Options
	closed  atomic.Bool

	mu        sync.Mutex             // guards what follows
	sessions  map[*Session]struct{}  // that have not ended
	endpoints map[*endpoint]struct{} // that were not closed
	caches    keyCaches
	inflows   map[string]*inflow // by queue; one for each that was opened for receiving

	watch storeWatch
	known knownKeys
}

// New returns a Client over p, which it owns from then on: Close closes it. It
// fails with ErrInvalidOptions where the options contradict each other, and
// does no I/O.
func New(p driver.Broker, o *Options) (*Client, error) {
	if p == nil {
		return nil, wrap("new", "", invalidOption("nil driver.Broker"))
	}
	c := &Client{broker: p, sessions: make(map[*Session]struct{}), endpoints: make(map[*endpoint]struct{})}
	if o != nil {
		c.options = *o
	}
	c.options.Crypto.AcceptedOrigins = slices.Clone(c.options.Crypto.AcceptedOrigins)
	c.options.Crypto.AcceptedVersions = slices.Clone(c.options.Crypto.AcceptedVersions)
	if c.options.Logger == nil {
		c.options.Logger = slog.Default()
	}
	c.watch.policy = c.options.OnStoreLoss
	c.watch.warn = func(err error) {
		c.options.Logger.Error("Replay store lost its memory: what was handled before can be replayed", "error", err.Error(), "stopped", c.watch.policy == StopOnLoss)
	}
	cfg, err := c.options.Crypto.resolveSender()
	if err == nil && cfg.TrackReplays && c.options.ReplayStore == nil {
		err = invalidOption("Crypto.TrackReplays is set and Options.ReplayStore is nil")
	}
	if err == nil && cfg.Enabled && c.options.Keys == nil && c.options.KeysFor == nil && c.options.CryptoProvider == nil {
		err = invalidOption("Crypto.Enabled is set and there are no keys: set Options.Keys or KeysFor")
	}
	if err != nil {
		return nil, wrap("new", "", err)
	}
	if c.options.Environment == "production" && !cfg.Enabled {
		c.options.Logger.Warn("Message encryption is DISABLED in production", "environment", "production", "encrypted", false)
	}
	return c, nil
}

// Broker returns the broker that the Client owns: for packages that open queues beside
// it. Closing it closes what the Client opened.
func (c *Client) Broker() driver.Broker { return c.broker }

// Options returns the options in force: a copy, with the defaults filled in. Logger
// is never nil, and neither is KeysFor: it answers for every queue, with the cache that
// the Client keeps in front of its keys, or nil if the queue has none.
func (c *Client) Options() Options {
	o := c.options
	o.Crypto.AcceptedOrigins = slices.Clone(o.Crypto.AcceptedOrigins)
	o.Crypto.AcceptedVersions = slices.Clone(o.Crypto.AcceptedVersions)
	o.KeysFor = func(queue string) keys.Provider {
		cached, err := c.keysOf(queue)
		if err != nil || cached == nil {
			return nil // an error is that of a closed Client
		}
		return cached
	}
	return o
}

// Close closes the broker and with it every Sender, Receiver and Session.
// Further calls fail with ErrClosed; a second Close returns nil.
func (c *Client) Close(ctx context.Context) error {
	if ctx == nil {
		return wrap("close", "", errNilContext)
	}
	if c.closed.Swap(true) {
		return nil
	}
	err := c.broker.Close(ctx)
	c.mu.Lock()
	sessions := slices.Collect(maps.Keys(c.sessions))
	endpoints := slices.Collect(maps.Keys(c.endpoints))
	caches := c.caches
	c.mu.Unlock()
	for _, s := range sessions {
		s.end(observe.SessionClosed, errSessionClosed)
	}
	for _, e := range endpoints {
		e.over(ctx)
	}
	return wrap("close", "", errors.Join(err, caches.close(ctx)))
}

// adopt makes s end with c; false where c is closed.
func (c *Client) adopt(s *Session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions[s] = struct{}{}
	return !c.closed.Load() // else Close may have looked already
}

func (c *Client) disown(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, s)
}
