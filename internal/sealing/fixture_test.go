package sealing

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/stream"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
)

const orders = "orders"

// events counts what an Observer was told.
type events struct {
	observe.Nop
	sealed, opened, failed, used int
	lastErr                      error // of Opened
}

func (e *events) Sealed(context.Context, observe.Source, observe.Sealed) { e.sealed++ }
func (e *events) Opened(_ context.Context, _ observe.Source, o observe.Opened) {
	e.opened++
	e.lastErr = o.Err
}
func (e *events) CryptoError(context.Context, observe.Source, observe.CryptoError) { e.failed++ }
func (e *events) KeyUsed(context.Context, observe.Source, observe.KeyUsed)         { e.used++ }

// pair is a QueueSealer and a QueueOpener of one queue over the same keys.
type pair struct {
	testing.TB
	ring   *keys.Ring
	events events
	scope  observe.Scope
	sealer *QueueSealer
	opener *QueueOpener
}

func newKey(t testing.TB, id keys.ID, fill byte, o *keys.Options) *keys.Key {
	t.Helper()
	k, err := keys.New(id, bytes.Repeat([]byte{fill}, keys.Size), o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newPair returns a pair whose current key is k1.
func newPair(t testing.TB) *pair {
	t.Helper()
	ring, err := keys.NewRing(newKey(t, "k1", 1, nil))
	if err == nil {
		err = ring.SetCurrent("k1")
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{TB: t, ring: ring}
	p.scope = observe.NewScope(&p.events, observe.Source{Queue: orders})
	c := NewCipher(ring)
	if c.Keys() != keys.Provider(ring) {
		t.Error("Keys is not the provider")
	}
	p.sealer = &QueueSealer{Queue: orders, Crypto: c, Keys: ring, Streams: stream.New(c.EndEpochs), Observe: &p.scope}
	p.opener = &QueueOpener{Queue: orders, Crypto: c, Observe: &p.scope}
	return p
}

// seal seals m under the current key.
func (p *pair) seal(m *driver.Message) {
	p.Helper()
	if f := p.trySeal(m); f != nil {
		p.Fatal(f)
	}
}

func (p *pair) trySeal(m *driver.Message) *Failure {
	return sealOne(p.Context(), p.sealer, m)
}

// sealOne does what Sender.Send does to a message, up to the broker's answer.
func sealOne(ctx context.Context, s *QueueSealer, m *driver.Message) *Failure {
	id, f := s.CurrentKey(ctx)
	if f != nil {
		return f
	}
	now := time.Now()
	var numbers Numbers
	s.Begin(&numbers, stream.Plain, now)
	n := numbers.Next(id, m)
	if _, f := s.Seal(ctx, &numbers, &n, m, now); f != nil {
		n.Void()
		return f
	}
	n.Confirm()
	return nil
}

// sealed returns a message that is sealed.
func (p *pair) sealed() *driver.Delivery {
	p.Helper()
	m := &driver.Message{ID: "m", Body: []byte("body"), Attributes: map[string]string{"a": "1"}}
	p.seal(m)
	return &driver.Delivery{Message: *m}
}

// open returns what o makes of a delivery.
func open(ctx context.Context, o *QueueOpener, d *driver.Delivery) (opened Opened, f *Failure) {
	f = o.Open(ctx, d, &opened)
	return opened, f
}

// refuses checks what Open says of a message.
func (p *pair) refuses(what string, d *driver.Delivery, reason string, err error) {
	p.Helper()
	_, f := open(p.Context(), p.opener, d)
	p.failed(what, f, reason, err)
}

func (p *pair) failed(what string, f *Failure, reason string, err error) {
	p.Helper()
	switch {
	case f == nil:
		p.Errorf("%s: no failure, want %q", what, reason)
	case f.Reason != reason || !errors.Is(f, err) || f.Error() == "":
		p.Errorf("%s: %q, %v; want %q, %v", what, f.Reason, f, reason, err)
	}
}

// provider answers with what is set, and otherwise as the ring does.
type provider struct {
	keys.Provider
	key     *keys.Key
	err     error
	nothing bool
}

func (p *provider) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	if p.err != nil || p.key != nil || p.nothing {
		return p.key, p.err
	}
	return p.Provider.GetKey(ctx, id)
}

func (p *provider) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	if p.err != nil {
		return "", p.err
	}
	return p.Provider.CurrentKeyID(ctx)
}

var (
	errAway = errors.New("away")
	minute  = time.Minute
	quiet   = observe.NewScope(nil, observe.Source{Queue: orders})
)
