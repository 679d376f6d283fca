package queue

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
)

// endpoint is what senders and receivers of one queue have in common.
type endpoint struct {
	queue  string
	q      driver.Queue
	caps   driver.Capabilities
	cfg    CryptoConfig
	opener sealing.QueueOpener
	sealer *sealing.QueueSealer // nil without keys, or without a key provider to name the current one
	role   observe.Role
	obs    observe.Scope
	log    *slog.Logger
	client *Client
	leave  func(context.Context) // called once when the endpoint is over; nil means nothing
}

// close closes the queue, and tells the Observer once that the endpoint is over.
func (e *endpoint) close(ctx context.Context) error {
	if ctx == nil {
		return errNilContext
	}
	err := e.q.Close(ctx)
	e.over(ctx)
	return err
}

// refuseSenderKey returns an error if the current key is a sender key, which opens no
// message of another sender. A key store is not asked, because opening must not wait for
// it: its sender key is met when a message comes.
func (e *endpoint) refuseSenderKey(ctx context.Context) error {
	if e.opener.Valid == nil || !e.opener.Valid.Local() {
		return nil
	}
	id, _ := e.opener.Valid.CurrentKeyID(ctx) // "" of an empty ring, perhaps: its keys come later
	if key := e.opener.Valid.AtHand(id); key != nil && key.SenderID() != "" {
		return invalidOption("key %q is the sender key of %q: a receiver needs the master key that it was made from", id, key.SenderID())
	}
	return ctx.Err()
}

// endEpochs makes the next seal draw a new salt.
func (e *endpoint) endEpochs() {
	if c, ok := e.opener.Crypto.(*sealing.Cipher); ok {
		c.EndEpochs()
	}
}

// over tells the Observer that the endpoint is closed, unless it was told before.
func (e *endpoint) over(ctx context.Context) {
	c := e.client
	c.mu.Lock()
	_, open := c.endpoints[e]
	delete(c.endpoints, e)
	c.mu.Unlock()
	if !open {
		return
	}
	if e.leave != nil {
		e.leave(ctx)
	}
	e.obs.Closed(ctx, e.obs.Source, observe.Closed{Role: e.role})
}

// endpointRequest is what a sender or receiver asks for when it opens its queue.
type endpointRequest struct {
	queue  string
	role   observe.Role
	keys   keys.Provider  // nil means the Client's
	crypto CryptoProvider // nil means the Client's, unless keys are set
	config *CryptoConfig  // nil means the Client's
	lock   time.Duration  // 0 means the queue's own
}

// open checks the configuration before it opens the queue, so that a wrong one costs no
// request to the broker.
func (c *Client) open(ctx context.Context, r endpointRequest) (*endpoint, error) {
	if err := checkContext(ctx); err != nil {
		return nil, err
	}
	if c.closed.Load() {
		return nil, driver.ErrClosed
	}
	if err := checkName(r.queue); err != nil {
		return nil, err
	}
	raw := c.options.Crypto
	if r.config != nil {
		raw = *r.config
		raw.AcceptedOrigins = slices.Clone(raw.AcceptedOrigins)
		raw.AcceptedVersions = slices.Clone(raw.AcceptedVersions)
	}
	if _, err := raw.resolveSender(); err != nil {
		return nil, err
	}
	if what := raw.loosened(&c.options.Crypto, r.role); what != "" {
		return nil, invalidOption("the Crypto of this %s is less strict than the Client's: %s; repeat the Client's settings in it, or set Loosen", r.role, what)
	}
	e := &endpoint{
		queue:  r.queue,
		role:   r.role,
		obs:    observe.NewScope(c.options.Observer, observe.Source{Queue: r.queue, Environment: c.options.Environment}),
		log:    c.options.Logger,
		client: c,
	}
	if err := e.useKeys(c, r); err != nil {
		return nil, err
	}
	if raw.Enabled && e.opener.Crypto == nil {
		return nil, invalidOption("encryption is enabled and queue %q has no keys", r.queue)
	}
	var qo *driver.QueueOptions
	if r.role != observe.Sender {
		qo = &driver.QueueOptions{Lock: r.lock}
	}
	var err error
	if e.q, err = c.broker.Open(ctx, r.queue, qo); err != nil {
		return nil, err
	}
	e.caps = e.q.Capabilities()
	if r.role == observe.Sender {
		e.cfg, err = raw.resolveSender()
	} else {
		e.cfg, err = raw.Resolve(e.caps.Retention)
	}
	if err != nil {
		_ = e.q.Close(ctx) // the configuration's error is the one that tells
		return nil, err
	}
	e.opener.Origins = e.cfg.AcceptedOrigins
	c.mu.Lock()
	c.endpoints[e] = struct{}{}
	c.mu.Unlock()
	e.obs.Configured(ctx, e.obs.Source, observe.Configured{Role: r.role, Encrypted: e.cfg.Enabled})
	return e, nil
}

// useKeys settles which keys the endpoint has, and how it uses them.
func (e *endpoint) useKeys(c *Client, r endpointRequest) error {
	var p *keys.Cached
	var err error
	if r.keys != nil {
		p, err = c.cached(r.keys)
	} else {
		p, err = c.keysOf(r.queue)
	}
	if err != nil {
		return err
	}
	custom := r.crypto
	if custom == nil && r.keys == nil {
		custom = c.options.CryptoProvider
	}
	var crypto sealing.Crypto
	switch a, ok := custom.(*AESGCM); {
	case ok:
		crypto = a.cipher
		if p == nil {
			if p, err = c.cached(a.cipher.Keys()); err != nil {
				return err
			}
		}
	case custom != nil:
		crypto = custom
	case p != nil:
		crypto = sealing.NewCipher(p)
	}
	e.opener = sealing.QueueOpener{Queue: r.queue, Crypto: crypto, Observe: &e.obs}
	if p != nil {
		e.opener.Valid = p
		e.sealer = &sealing.QueueSealer{Queue: r.queue, Crypto: crypto, Keys: p, Observe: &e.obs}
	}
	return nil
}
