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
	ReplayStore replay.NonceStore

	// Environment names where this runs, as a label of metrics; "production"
	// without encryption is warned about. Empty: "".
	Environment string

	// Logger gets a line for each message sent, received and rejected. Nil:
	// slog.Default at the time of New.
	Logger *slog.Logger

	// Observer is for metrics and traces. Nil: none, at no cost.
	Observer Observer

	// OnRejected is called, from the goroutine that receives, for each message
	// that was received and not delivered. It must neither block, while the
	// messages received with it are locked, nor panic. Nil: none.
	OnRejected func(context.Context, *RejectedError)
}

// Client sends and receives over one broker. It is safe for concurrent use.
type Client struct {
	provider driver.Broker
	options  Options
	closed   atomic.Bool

	mu       sync.Mutex            // guards what follows
	sessions map[*Session]struct{} // that have not ended
	caches   keyCaches
}

// New returns a Client over p, which it owns from then on: Close closes it. It
// fails with ErrInvalidOptions where the options contradict each other, and
// does no I/O.
func New(p driver.Broker, o *Options) (*Client, error) {
	if p == nil {
		return nil, wrap("new", "", invalidOption("nil driver.Broker"))
	}
	c := &Client{provider: p, sessions: make(map[*Session]struct{})}
	if o != nil {
		c.options = *o
	}
	c.options.Crypto.AcceptedOrigins = slices.Clone(c.options.Crypto.AcceptedOrigins)
	if c.options.Logger == nil {
		c.options.Logger = slog.Default()
	}
	cfg, err := c.options.Crypto.resolve(-1)
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

// Close closes the provider and with it every Sender, Receiver and Session.
// Further calls fail with ErrClosed; a second Close returns nil.
func (c *Client) Close(ctx context.Context) error {
	if ctx == nil {
		return wrap("close", "", errNilContext)
	}
	if c.closed.Swap(true) {
		return nil
	}
	err := c.provider.Close(ctx)
	c.mu.Lock()
	sessions := slices.Collect(maps.Keys(c.sessions))
	caches := c.caches
	c.mu.Unlock()
	for _, s := range sessions {
		s.end(errSessionClosed, "closed", 0)
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

// endpoint is what senders and receivers of one queue have in common.
type endpoint struct {
	scope
	q      driver.Queue
	caps   driver.Capabilities
	cfg    CryptoConfig
	keys   *keys.Cached   // nil: none
	crypto CryptoProvider // nil: none
	log    *slog.Logger
	client *Client
}

// open opens a queue and settles which keys and which configuration it has.
func (c *Client) open(ctx context.Context, op, queue string, k keys.Provider, cp CryptoProvider, cfg *CryptoConfig, qo *driver.QueueOptions) (*endpoint, error) {
	if err := checkContext(ctx); err != nil {
		return nil, err
	}
	if c.closed.Load() {
		return nil, driver.ErrClosed
	}
	if err := checkName(queue); err != nil {
		return nil, err
	}
	e := &endpoint{
		scope:  newScope(c.options.Observer, queue, c.options.Environment),
		crypto: cp,
		log:    c.options.Logger,
		client: c,
	}
	if e.crypto == nil && k == nil {
		e.crypto = c.options.CryptoProvider
	}
	if k == nil && c.options.KeysFor != nil {
		k = c.options.KeysFor(queue)
	}
	if k == nil {
		k = c.options.Keys
	}
	if k != nil {
		var err error
		if e.keys, err = c.cached(k); err != nil {
			return nil, err
		}
	}
	if e.crypto == nil && e.keys != nil {
		a, err := NewAESGCM(e.keys)
		if err != nil {
			return nil, err
		}
		e.crypto = a
	}
	raw := c.options.Crypto
	if cfg != nil {
		raw = *cfg
		raw.AcceptedOrigins = slices.Clone(raw.AcceptedOrigins)
	}
	// Before the broker is asked, so that a wrong configuration opens nothing.
	if _, err := raw.resolve(-1); err != nil {
		return nil, err
	}
	if raw.Enabled && e.crypto == nil {
		return nil, invalidOption("encryption is enabled and queue %q has no keys", queue)
	}
	q, err := c.provider.Open(ctx, queue, qo)
	if err != nil {
		return nil, err
	}
	e.q, e.caps = q, q.Capabilities()
	retention := e.caps.Retention
	if op == "sender" {
		retention = -1
	}
	if e.cfg, err = raw.resolve(retention); err != nil {
		_ = q.Close(ctx) // the configuration's error is the one that tells
		return nil, err
	}
	e.event(ctx, Event{Kind: EventConfigured, Encrypted: e.cfg.Enabled, Reason: op})
	return e, nil
}

// Capabilities are what the queue's broker can do.
func (e *endpoint) capabilities() driver.Capabilities { return e.caps }
