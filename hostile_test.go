package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// A body that begins with the marker, or that its transport calls sealed, is
// never plaintext: not under any policy, not without keys.
func TestMarkerIsNeverPlaintext(t *testing.T) {
	bodies := map[string]func(whole []byte) driver.Message{
		"the marker alone":       func([]byte) driver.Message { return driver.Message{Body: []byte("QRE1")} },
		"marker and version":     func([]byte) driver.Message { return driver.Message{Body: []byte("QRE1\x01")} },
		"marker and text":        func([]byte) driver.Message { return driver.Message{Body: []byte("QRE1\x01 is a fine format")} },
		"an unknown flag":        func(b []byte) driver.Message { b[5] = 2; return driver.Message{Body: b} },
		"a header cut short":     func(b []byte) driver.Message { return driver.Message{Body: b[:60]} },
		"sealed, and no marker":  func([]byte) driver.Message { return driver.Message{Body: []byte("forged"), Sealed: true} },
		"sealed, marker removed": func(b []byte) driver.Message { return driver.Message{Body: b[4:], Sealed: true} },
	}
	for _, policy := range []queue.PlaintextPolicy{queue.Allow, queue.AllowWithAlert, queue.Reject} {
		for _, keyed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, keys %t", policy, keyed), func(t *testing.T) {
				change := func(_ *fixture, o *queue.Options) {
					o.Crypto = queue.CryptoConfig{PlaintextPolicy: policy}
					if !keyed {
						o.Keys = nil
					}
				}
				inBubble(t, change, func(x *fixture) {
					r := x.Receiver(orders, nil)
					for what, forge := range bodies {
						m := forge(x.sealed("m", time.Now(), time.Time{}).Body)
						m.ID = "m"
						x.Inject(orders, m)
						rejected := x.None(r, queue.ErrInvalidEnvelope)
						if rejected.Disposition != driver.DeadLettered {
							x.Errorf("%s: %s, want dead-lettered", what, rejected.Disposition)
						}
					}
					if got := x.DeadReasons(orders); len(got) != len(bodies) || slices.ContainsFunc(got, func(s string) bool { return s != "invalid_envelope" }) {
						x.Errorf("dead letters %v", got)
					}
				})
			})
		}
	}
}

// brokenTransport hands out deliveries as a text transport does whose encoding
// was tampered with.
type brokenTransport struct{ driver.Broker }

func (p brokenTransport) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return brokenQueue{q}, err
}

type brokenQueue struct{ driver.Queue }

func (q brokenQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	ds, err := q.Queue.Receive(ctx, max, wait)
	for _, d := range ds {
		d.Undecodable = true
	}
	return ds, err
}

// A message that the transport could not decode is dead-lettered, even if plaintext is
// allowed.
func TestUndecodableIsNeverDelivered(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.inject2(orders, driver.Message{ID: "m", Body: []byte("UVJFMQ!!")})
		c, err := queue.New(brokenTransport{x.Broker}, &queue.Options{Keys: x.Ring, Logger: quiet()})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		x.None(r, queue.ErrInvalidEnvelope)
		if got := x.DeadReasons(orders); !slices.Equal(got, []string{"invalid_envelope"}) {
			x.Errorf("dead letters %v", got)
		}
	})
}

// duplicating is a transport on which an attribute of each message arrived twice.
type duplicating struct{ driver.Broker }

func (p duplicating) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return duplicatingQueue{q}, err
}

type duplicatingQueue struct{ driver.Queue }

func (q duplicatingQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	ds, err := q.Queue.Receive(ctx, max, wait)
	for _, d := range ds {
		d.DuplicateName = true
	}
	return ds, err
}

// A message with an attribute's name twice is not delivered: a sealed one fails as the
// specification says, one that is not sealed is broken, even if plaintext is allowed.
func TestDuplicateNameIsNeverDelivered(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		c, err := queue.New(duplicating{x.Broker}, &queue.Options{Keys: x.Ring, Logger: quiet()})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		x.inject2(orders, driver.Message{ID: "plain", Attributes: map[string]string{"a": "1"}})
		x.None(r, queue.ErrInvalidEnvelope)
		x.Send(&queue.Message{ID: "sealed", Attributes: map[string]string{"a": "1"}})
		x.None(r, queue.ErrAuthenticationFailed)
	})
}

// shortStore answers for fewer messages than it was asked for.
type shortStore struct{ replay.Store }

func (s shortStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	c, err := s.Store.Begin(ctx, group, r)
	return c[:max(len(c)-1, 0)], err
}

// A message that the store does not answer for is not delivered: it could be replayed
// for ever.
func TestClaimWithoutAnswerFailsClosed(t *testing.T) {
	broken := func(x *fixture, o *queue.Options) { o.ReplayStore = shortStore{x.Store} }
	inBubble(t, broken, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		if rejected := x.None(x.Receiver(orders, nil), queue.ErrReplayStore); rejected.Disposition != driver.Released {
			x.Errorf("%s, want released", rejected.Disposition)
		}
	})
}

// No sum of the durations overflows.
func TestDurationsDoNotOverflow(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		const century = 99 * 365 * 24 * time.Hour
		_, err := queue.New(x.Broker, &queue.Options{
			Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(),
			Crypto: queue.CryptoConfig{TrackReplays: true, MaxMessageAge: century, MaxClockSkew: century},
		})
		if !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("New = %v, want ErrInvalidOptions", err)
		}
	})
}

// Dead-lettering where there is no dead-letter queue leaves the message as it
// was: it can still be completed.
func TestDeadLetterUnsupported(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: func(c *driver.Capabilities) { c.DeadLetter = driver.None }}
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		d := x.One(r)
		if err := d.DeadLetter(x.Context(), queue.Reason{Code: "odd"}); !errors.Is(err, errors.ErrUnsupported) {
			x.Errorf("DeadLetter = %v, want ErrUnsupported", err)
		}
		x.Must(d.Complete(x.Context()))
	})
}

// A batch that arrives while the key provider is away asks it once, and not once
// for each message: a provider that is slow to fail would hold the batch past
// its locks.
func TestBatchAsksFailingProviderOnce(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for range 50 {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		p := &countingProvider{Provider: x.Ring}
		p.broken.Store(true)
		r := x.Receiver(orders, &queue.ReceiverOptions{Keys: p, Wait: time.Second})
		x.Nothing(r.Receive(x.Context(), 50))
		if len(x.Rejected) != 50 {
			x.Fatalf("%d rejected, want 50", len(x.Rejected))
		}
		if n := p.calls.Load(); n != 1 {
			x.Errorf("%d calls to the provider for a batch of 50, want 1", n)
		}
	})
}

// An ID that is not authentic does not fill the log.
func TestLongIDsAreClipped(t *testing.T) {
	allow := func(_ *fixture, o *queue.Options) { o.Crypto.PlaintextPolicy = queue.Allow }
	inBubble(t, allow, func(x *fixture) {
		r := x.Receiver(orders, nil)
		long := strings.Repeat("x", 1<<20)
		forged := x.sealed("m", time.Now(), time.Time{})
		forged.ID = long
		x.Prove(r)
		x.Inject(orders, forged)
		x.None(r, queue.ErrAuthenticationFailed)
		x.Inject(orders, driver.Message{ID: long, Body: []byte("plain")})
		x.Must(x.One(r).Complete(x.Context()))
		if n := x.Log.Len(); n > 4096 {
			x.Errorf("two messages put %d bytes into the log", n)
		}
	})
}

// A session's state works with an AESGCM of the application's own, and without
// Keys beside it.
func TestSessionStateWithCryptoProvider(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		own, err := queue.NewAESGCM(x.Ring)
		x.Must(err)
		c, err := queue.New(x.Broker, &queue.Options{CryptoProvider: own, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject}})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
		x.Must(err)
		s, err := r.AcceptSession(x.Context(), "s")
		x.Must(err)
		x.Must(s.SetState(x.Context(), []byte("progress")))
		if b, err := s.State(x.Context()); string(b) != "progress" || err != nil {
			x.Errorf("State = %q, %v", b, err)
		}
		x.Must(s.Close(x.Context()))
	})
}

// A state in plaintext is told like a message in plaintext, and one that was
// tampered with is counted.
func TestSessionStateIsTold(t *testing.T) {
	rec := newRecorder(t, orders)
	alert := func(_ *fixture, o *queue.Options) {
		o.Observer = rec
		o.Crypto.PlaintextPolicy = queue.AllowWithAlert
	}
	inBubble(t, alert, func(x *fixture) {
		r := x.Receiver(orders, nil)
		s, err := r.AcceptSession(x.Context(), "s")
		x.Must(err)
		x.Must(s.SetState(x.Context(), []byte("progress")))
		x.Must(s.Close(x.Context()))
		plant := func(change func(state []byte) []byte) {
			q, err := x.Broker.Connect().Open(x.Context(), orders, nil)
			x.Must(err)
			raw, err := q.AcceptSession(x.Context(), "s", time.Second)
			x.Must(err)
			old, err := raw.(driver.StatefulSession).State(x.Context())
			x.Must(err)
			x.Must(raw.(driver.StatefulSession).SetState(x.Context(), change(old)))
			x.Must(raw.Close(x.Context()))
		}
		read := func() ([]byte, error) {
			s, err := r.AcceptSession(x.Context(), "s")
			x.Must(err)
			b, err := s.State(x.Context())
			x.Must(s.Close(x.Context()))
			return b, err
		}
		plant(func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-1] ^= 1; return b })
		if b, err := read(); !errors.Is(err, queue.ErrAuthenticationFailed) {
			x.Errorf("State = %q, %v; want ErrAuthenticationFailed", b, err)
		}
		plant(func([]byte) []byte { return []byte("plain") })
		if b, err := read(); string(b) != "plain" || err != nil {
			x.Errorf("State = %q, %v", b, err)
		}
		kinds := rec.kinds()
		for _, want := range []string{"CryptoError:authentication_failed", "CryptoError:plaintext_allowed"} {
			if !slices.Contains(kinds, want) {
				x.Errorf("no event %s in %v", want, kinds)
			}
		}
		for _, want := range []string{`"level":"ERROR","msg":"Session state refused"`, `"reason":"authentication_failed"`, `"level":"ERROR","msg":"Session state read WITHOUT encryption"`} {
			if !strings.Contains(x.Log.String(), want) {
				x.Errorf("the log lacks %s:\n%s", want, x.Log)
			}
		}
		if strings.Contains(x.Log.String(), "progress") {
			x.Error("the log holds a state")
		}
	})
}

// mistakenProvider answers every question with one key.
type mistakenProvider struct {
	keys.Provider
	answer *keys.Key
}

func (p mistakenProvider) GetKey(context.Context, keys.ID) (*keys.Key, error) { return p.answer, nil }

// A provider that answers with another key, or with none and no error, is at
// fault, and not the message: it is given back, and nothing is sealed.
func TestProviderThatIsMistaken(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		for _, answer := range []*keys.Key{newKey(x.T, "k2", 9), nil} {
			p := mistakenProvider{x.Ring, answer}
			r := x.Receiver(orders, &queue.ReceiverOptions{Keys: p, Wait: time.Second})
			if rejected := x.None(r, queue.ErrKeyProvider); rejected.Disposition != driver.Released {
				x.Errorf("%v: %s, want released", answer, rejected.Disposition)
			}
			x.Wait(time.Minute)
			s, err := x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Keys: p})
			x.Must(err)
			if _, err := s.Send(x.Context(), &queue.Message{Body: []byte("b")}); !errors.Is(err, queue.ErrEncryptionFailed) {
				x.Errorf("%v: Send = %v, want ErrEncryptionFailed", answer, err)
			}
		}
		if n := len(x.Stored(orders)); n != 1 {
			x.Errorf("%d messages are stored, want 1", n)
		}
	})
}

// A broker that says that a lock ends in some centuries hides no loss by it: the claim of a
// receiver that crashed ends, and the message that the broker then drops is missing. The
// receiver knows that it has to renew.
func TestClaimOfAnEndlessLockEnds(t *testing.T) {
	const longest = 12 * time.Hour // the longest lock of a driver
	inBubble(t, nil, func(x *fixture) {
		lie := func(all []*driver.Delivery) {
			for _, d := range all {
				d.LockedUntil = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
			}
		}
		x.Wait(time.Minute) // the store is older than the stream
		s := x.Sender(orders)
		for _, id := range []string{"dropped", "next"} {
			_, err := s.Send(x.Context(), &queue.Message{ID: id, Body: []byte("a")})
			x.Must(err)
		}
		r := x.receiverOf(x.hostile(&hostileBroker{deliver: lie}, 24*time.Hour, nil), nil)
		d := x.One(r)
		if held := time.Until(d.HeldUntil()); held != longest {
			x.Errorf("it is held for %s, want %s", held, longest)
		}
		x.Wait(longest / 2)
		if errs := r.RenewAll(x.Context(), []*queue.Delivery{d}); errs[0] == nil {
			x.Error("the lock at the broker was over")
		}
		x.drop("dropped")
		x.Must(x.One(r).Complete(x.Context()))
		missing := func() (n int) {
			for s, err := range x.Store.Streams(x.Context(), orders) {
				x.Must(err)
				n += len(s.Missing)
			}
			return n
		}
		if n := missing(); n != 0 {
			x.Errorf("%d are missing while the claim lives", n)
		}
		x.Wait(longest)
		if n := missing(); n != 1 {
			x.Errorf("%d are missing after it, want 1", n)
		}
	})
}
