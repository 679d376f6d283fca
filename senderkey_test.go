package queue_test

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/keys"
)

// senderRing is a ring with the sender key of k1 alone.
func senderRing(t testing.TB, sender string) *keys.Ring {
	t.Helper()
	own, err := newKey(t, "k1", 1).Sender(sender)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(own)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// remote hides that a provider is local, as a key store is not.
type remote struct{ keys.Provider }

// A receiver that has only a sender key says so: when it opens, or, with a key store,
// with the first message of another sender.
func TestReceiverWithSenderKey(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		ring := senderRing(x.T, "router")
		_, err := x.Client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Keys: ring})
		if !errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), `sender key of "router"`) {
			x.Errorf("Receiver = %v", err)
		}
		empty := newRing(x.T, "k1")
		x.Must(empty.Remove("k1"))
		_, err = x.Client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Keys: empty})
		x.Must(err) // its keys may come later
		away := newSecretStore()
		away.takes = time.Hour
		begin := time.Now()
		_, err = x.Client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Keys: away})
		x.Must(err)
		if took := time.Since(begin); took > 0 {
			x.Errorf("opening waited %s for a key store", took)
		}
		r, err := x.Client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Keys: remote{ring}, Wait: time.Second})
		x.Must(err)
		x.Send(&queue.Message{ID: "by the master key"})
		rejected := x.None(r, queue.ErrKeyNotFound)
		var e *queue.KeyNotFoundError
		if !errors.As(rejected, &e) || !errors.Is(rejected, keys.ErrSenderKey) || !strings.Contains(rejected.Error(), "sender key of router") || !strings.Contains(rejected.Error(), "use the master key") {
			x.Errorf("%v does not say that it has a sender key", rejected)
		}
		if rejected.Disposition != driver.Abandoned && rejected.Disposition != driver.Released {
			x.Errorf("the message was %s", rejected.Disposition)
		}
	})
}

// A receiver that lists who may send rejects a message of any other sender before it looks
// for a key, and nothing of it reaches the replay store.
func TestReceiverAcceptsSenders(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		r, err := x.Client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Senders: []string{"router"}, Wait: time.Second})
		x.Must(err)
		for _, id := range []string{"router", "bot"} {
			_, err = x.senderNamed(id, x.Broker.Connect()).Send(x.Context(), &queue.Message{ID: "of the " + id})
			x.Must(err)
		}
		d := x.One(r)
		if d.ID != "of the router" || d.Sender != "router" {
			x.Errorf("received %q of %q, want that of the router", d.ID, d.Sender)
		}
		x.Must(d.Complete(x.Context()))
		before, err := x.Store.Stats(x.Context())
		x.Must(err)
		x.Must(x.Ring.Remove("k1"))
		rejected := x.None(r, queue.ErrSenderNotAccepted)
		if rejected.MessageID != "of the bot" || rejected.Disposition != driver.DeadLettered || rejected.Reason != driver.ReasonSender {
			x.Errorf("%+v, want a dead letter for %s", rejected, driver.ReasonSender)
		}
		after, err := x.Store.Stats(x.Context())
		x.Must(err)
		if after.Streams != before.Streams || after.Records != before.Records {
			x.Errorf("the replay store has %+v, and had %+v before: a sender that is not accepted reached it", after, before)
		}
	})
}

// inStatefulSession calls f with what the broker stores of a session.
func (x *fixture) inStatefulSession(id string, f func(driver.StatefulSession)) {
	x.Helper()
	q, err := x.Broker.Connect().Open(x.Context(), orders, nil)
	x.Must(err)
	s, err := q.AcceptSession(x.Context(), id, time.Second)
	x.Must(err)
	f(s.(driver.StatefulSession))
	x.Must(s.Close(x.Context()))
}

func (x *fixture) stateKey(id string) (keyID string) {
	x.Helper()
	x.inStatefulSession(id, func(s driver.StatefulSession) {
		b, err := s.State(x.Context())
		x.Must(err)
		e, err := envelope.Parse(b)
		x.Must(err)
		keyID = e.KeyID
	})
	return keyID
}

// A state that was sealed under a key that is no longer current is sealed anew when it is
// read, so that the key can be retired.
func TestSessionStateIsRenewed(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		r := x.Receiver(orders, nil)
		in := func(f func(*queue.Session)) {
			s, err := r.AcceptSession(x.Context(), "s")
			x.Must(err)
			f(s)
			x.Must(s.Close(x.Context()))
		}
		read := func(s *queue.Session) {
			if b, err := s.State(x.Context()); string(b) != "progress" || err != nil {
				x.Errorf("State = %q, %v", b, err)
			}
		}
		in(func(s *queue.Session) { x.Must(s.SetState(x.Context(), []byte("progress"))) })
		in(read)
		if id := x.stateKey("s"); id != "k1" {
			x.Errorf("sealed under %s, which is current no more than before", id)
		}
		x.Must(x.Ring.SetCurrent("k2"))
		in(read)
		if id := x.stateKey("s"); id != "k2" {
			x.Errorf("after it was read under k1 it is sealed under %s, want k2", id)
		}
		x.Must(x.Ring.Remove("k1"))
		in(read)
	})
}

// slowStates is a broker that answers State late.
type slowStates struct{ driver.Broker }

func (p slowStates) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return slowStateQueue{q}, err
}

type slowStateQueue struct{ driver.Queue }

func (q slowStateQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	return slowStateSession{s, s.(driver.StatefulSession)}, nil
}

type slowStateSession struct {
	driver.Session
	stateful driver.StatefulSession
}

func (s slowStateSession) State(ctx context.Context) ([]byte, error) {
	b, err := s.stateful.State(ctx)
	time.Sleep(time.Second)
	return b, err
}

func (s slowStateSession) SetState(ctx context.Context, b []byte) error {
	return s.stateful.SetState(ctx, b)
}

// State stores what it read anew, and never in the place of what SetState stored meanwhile.
func TestRenewedStateUndoesNothing(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		c, err := queue.New(slowStates{x.Broker}, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
		x.Must(err)
		r, err := c.Receiver(x.Context(), orders, nil)
		x.Must(err)
		s, err := r.AcceptSession(x.Context(), "s")
		x.Must(err)
		x.Must(s.SetState(x.Context(), []byte("old")))
		x.Must(x.Ring.SetCurrent("k2"))
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.State(x.Context()); err != nil {
				x.Error(err)
			}
		})
		x.Wait(500 * time.Millisecond) // it has read the old state, and waits for the answer
		x.Must(s.SetState(x.Context(), []byte("new")))
		wg.Wait()
		if b, err := s.State(x.Context()); string(b) != "new" || err != nil {
			x.Errorf("State = %q, %v, want what was set last", b, err)
		}
		x.Must(s.Close(x.Context()))
		x.Must(c.Close(x.Context()))
	})
}

// A state that a sender key sealed is refused, in its own name and in that of a holder of
// the master key.
func TestSessionStateBySenderKey(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		stolen, err := senderRing(x.T, "router").GetKey(x.Context(), "k1")
		x.Must(err)
		for sender, d := range map[string]envelope.Deriver{"router": stolen, "": impostor{stolen}} {
			sealer, err := envelope.NewSealer(d, "k1", sender)
			x.Must(err)
			data := append([]byte("queue-runtime/session-state/v1\x00"), binary.BigEndian.AppendUint32(nil, uint32(len(orders)))...)
			data = append(append(data, orders...), "s"...)
			forged, err := sealer.SealApp(nil, &envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: orders}, []byte("forged"), data)
			x.Must(err)
			x.inStatefulSession("s", func(s driver.StatefulSession) { x.Must(s.SetState(x.Context(), forged)) })
			s, err := x.Receiver(orders, nil).AcceptSession(x.Context(), "s")
			x.Must(err)
			if b, err := s.State(x.Context()); !errors.Is(err, queue.ErrAuthenticationFailed) || b != nil {
				x.Errorf("sender %q: State = %q, %v", sender, b, err)
			}
			x.Must(s.Close(x.Context()))
		}
	})
}

// impostor derives with one sender's key for any sender.
type impostor struct{ key *keys.Key }

func (i impostor) Derive(_ string, info []byte) ([64]byte, error) {
	return i.key.Derive("router", info)
}

// The limits of a broker hold for what is padded.
func TestPaddingCountsInLimits(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: func(c *driver.Capabilities) { c.MaxBody = 2000 }}
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
		x.Must(err)
		for name, tt := range map[string]struct {
			padding envelope.Padding
			body    int
			want    error
		}{
			"no padding":       {envelope.NoPadding, 1500, nil},
			"padded, fits":     {envelope.PadTo(1024), 1020, nil},
			"padded, too long": {envelope.PadTo(1024), 1021, queue.ErrMessageTooLarge},
		} {
			s, err := c.Sender(x.Context(), orders, &queue.SenderOptions{Padding: tt.padding})
			x.Must(err)
			if _, err := s.Send(x.Context(), &queue.Message{Body: make([]byte, tt.body)}); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				x.Errorf("%s: Send = %v, want %v", name, err, tt.want)
			}
		}
		if _, err := c.Sender(x.Context(), orders, &queue.SenderOptions{Padding: envelope.PadTo(0)}); !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("a padding that is not valid: %v", err)
		}
		if _, err := c.Sender(x.Context(), orders, &queue.SenderOptions{Padding: envelope.Padme, Keys: x.Ring, CryptoProvider: foreign{}}); !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("padding with another CryptoProvider: %v", err)
		}
		x.Must(c.Close(x.Context()))
	})
}

// foreign is a CryptoProvider that is not AESGCM.
type foreign struct{ queue.CryptoProvider }

// A stolen sender key that uses the identity of an honest message first, and calls its own
// message sealed anew, has the honest one dead-lettered, not deleted as a copy.
func TestStolenSenderKeyDeletesNothing(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s := x.senderNamed("router", x.Broker.Connect())
		for _, id := range []string{"first", "second"} {
			_, err := s.Send(x.Context(), &queue.Message{ID: id, Body: []byte(id)})
			x.Must(err)
		}
		for _, m := range x.Stored(orders) {
			x.preempt(m)
		}
		r := x.Receiver(orders, nil)
		for range 2 {
			if d := x.One(r); d.ID != "forged" {
				x.Errorf("%s is delivered", d.ID)
			} else {
				x.Must(d.Complete(x.Context()))
			}
		}
		for range 2 {
			x.None(r, queue.ErrNonceReused)
		}
		if waiting, dead := len(x.Stored(orders)), x.DeadReasons(orders); waiting > 0 || len(dead) != 2 {
			x.Errorf("%d waiting, dead letters %v; want both honest ones", waiting, dead)
		}
	})
}

// preempt puts, in front of all others, a message of the router under the identity of m that
// says that it was sealed anew.
func (x *fixture) preempt(m driver.Message) {
	x.Helper()
	key, err := senderRing(x.T, "router").GetKey(x.Context(), "k1")
	x.Must(err)
	e, err := envelope.Parse(m.Body)
	x.Must(err)
	h := e.Header.Reseal(time.Now().UnixMilli())
	h.Bound = nil
	s, err := envelope.NewSealer(key, "k1", "router")
	x.Must(err)
	data, err := envelope.AppendContext(nil, &envelope.Context{MessageID: "forged"}, nil)
	x.Must(err)
	body, err := s.Seal(nil, &h, []byte("forged"), data)
	x.Must(err)
	forged := driver.Message{ID: "forged", Body: body, Sealed: true}
	x.Rewrite(orders, func(all []driver.Message) []driver.Message { return append([]driver.Message{forged}, all...) })
}
