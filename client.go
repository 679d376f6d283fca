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

	// Keys are the keys of every queue that KeysFor does not cover. Nil means none.
	Keys keys.Provider

	// KeysFor gives a queue keys of its own; nil, or a nil answer, means Keys.
	// It is called once for each Sender and Receiver.
	KeysFor func(queue string) keys.Provider

	// CryptoProvider seals and opens in place of AESGCM over Keys. Nil means AESGCM.
	// If Keys are set too, they say under which key to seal, and only their valid
	// key IDs reach the CryptoProvider. Without Keys every forged key ID reaches it,
	// and it must itself bound the cost of looking them up.
	CryptoProvider CryptoProvider

	// ReplayStore remembers which messages were handled. Crypto.TrackReplays requires
	// it. It must lie outside the broker's reach, and all receivers of a group must
	// share it. A store in the broker's own database is refused unless it was opened
	// with an option that says that its operators are trusted. The Client does not
	// close it.
	ReplayStore replay.Store

	// OnStoreLoss says what receivers do if the replay store lost its memory. Zero is
	// StopOnLoss.
	OnStoreLoss StoreLoss

	// Environment is the name of the deployment, as a label of metrics. New logs a
	// warning for "production" without encryption. Empty means no name.
	Environment string

	// Logger gets a line for each message sent, received and rejected. Nil means
	// slog.Default at the time of New.
	Logger *slog.Logger

	// Observer gets the events for metrics and traces. Nil means none.
	Observer observe.Observer

	// OnRejected is called, from the goroutine that receives, for each message
	// that was received and not delivered. It must not panic, and must return
	// quickly: the messages received with it stay locked meanwhile. Nil means no
	// callback.
	OnRejected func(context.Context, *RejectedError)

	sendsOnly bool // of StrictSender
}

// Client sends and receives over one broker. It is safe for concurrent use.
type Client struct {
	broker  driver.Broker
	options Options
	closed  atomic.Bool

	mu            sync.Mutex             // guards what follows
	sessions      map[*Session]struct{}  // that have not ended
	endpoints     map[*endpoint]struct{} // that were not closed
	caches        keyCaches
	accountants   map[string]*accountant   // by group
	unreadRecords map[string]*unreadRecord // by queue; one for each that was opened for receiving

	watch storeWatch
	known knownKeys

	// What is said once.
	sharedKeyTold atomic.Bool
	storeTold     atomic.Bool
}

// New returns a Client over b. The Client owns b from then on: Close closes it. o may be
// nil. New fails with ErrInvalidOptions if b is nil or the options contradict each other.
// It does no I/O.
func New(b driver.Broker, o *Options) (*Client, error) {
	if b == nil {
		return nil, wrap("new", "", invalidOption("nil driver.Broker"))
	}
	c := &Client{broker: b, sessions: make(map[*Session]struct{}), endpoints: make(map[*endpoint]struct{})}
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
	c.watch.accepted = func(l replay.Loss) {
		c.options.Logger.Warn("Loss of the replay store's memory was accepted: receiving goes on", "lost", l.Lost.String(), "accepted_at", l.At.UTC())
	}
	if err := c.checkOptions(); err != nil {
		return nil, wrap("new", "", err)
	}
	if c.options.Environment == "production" && !c.options.Crypto.Enabled {
		c.options.Logger.Warn("Message encryption is DISABLED in production", "environment", "production", slog.Bool("encrypted", false))
	}
	return c, nil
}

// checkOptions refuses options that contradict each other.
func (c *Client) checkOptions() error {
	o := &c.options
	if _, err := o.Crypto.resolveSender(); err != nil {
		return err
	}
	switch {
	case o.Crypto.TrackReplays && o.ReplayStore == nil:
		return invalidOption("Crypto.TrackReplays is set and Options.ReplayStore is nil")
	case !o.Crypto.TrackReplays && o.ReplayStore != nil:
		return invalidOption("Options.ReplayStore is set and Crypto.TrackReplays is not: no replay would be noticed; set TrackReplays, or leave the store out")
	case o.Crypto.Enabled && o.Keys == nil && o.KeysFor == nil && o.CryptoProvider == nil:
		return invalidOption("Crypto.Enabled is set and there are no keys: set Options.Keys or KeysFor")
	}
	return c.checkDatabase()
}

// Broker returns the broker that the Client owns, for packages that open queues of their
// own. Closing it closes every Sender, Receiver and Session of the Client.
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
			return nil // an error says that the Client is closed
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

// tellOfStore says once that the replay store serves this process alone.
func (c *Client) tellOfStore(ctx context.Context) {
	if c.storeTold.Swap(true) {
		return
	}
	level := slog.LevelInfo
	if c.options.Environment == "production" {
		level = slog.LevelWarn
	}
	c.options.Logger.LogAttrs(ctx, level, "The replay store serves this process alone and forgets when it ends: after a restart, or in another process, a message can be handled again")
}

// adopt makes s end with c; false if c is closed.
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
