package queue_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// accept locks the session s.
func (x *fixture) accept(r *queue.Receiver) *queue.Session {
	x.Helper()
	s, err := r.AcceptSession(x.Context(), "s")
	x.Must(err)
	return s
}

// TestAcceptErrors: each reason for which there is no session, and what is asked of the broker.
func TestAcceptErrors(t *testing.T) {
	const op = "accept session"
	inBubble(t, nil, func(x *fixture) {
		left, cancel := context.WithCancel(x.Context())
		cancel()
		for name, c := range map[string]struct {
			p     *failingBroker
			ctx   context.Context
			id    string
			want  error
			calls int
		}{
			"an empty name":             {&failingBroker{}, x.Context(), "", queue.ErrInvalidOptions, 0},
			"no context":                {&failingBroker{}, nil, "s", queue.ErrInvalidOptions, 0},
			"no sessions":               {&failingBroker{caps: func(c *driver.Capabilities) { c.Sessions = driver.None }}, x.Context(), "s", errors.ErrUnsupported, 0},
			"no sessions by their name": {&failingBroker{caps: func(c *driver.Capabilities) { c.AcceptByID = false }}, x.Context(), "s", errors.ErrUnsupported, 0},
			"a broker that fails":       {&failingBroker{fails: map[string]error{"accept": errFailing}}, x.Context(), "s", errFailing, 1},
			"another session":           {&failingBroker{holds: "other"}, x.Context(), "s", queue.ErrAuthenticationFailed, 1},
		} {
			o := &diary{}
			r := x.receives(x.behind(c.p, func(c *queue.Options) { c.Observer = o }), nil)
			s, err := r.AcceptSession(c.ctx, c.id)
			x.failed(name, err, c.want, op)
			if s != nil || c.p.count("accept") != c.calls {
				x.Errorf("%s: %v after %d calls", name, s, c.p.count("accept"))
			}
			if name == "another session" {
				if c.p.count("close session") != 1 || c.p.last("close session").Err() == nil {
					x.Errorf("%s: it was closed %d times", name, c.p.count("close session"))
				}
				if !strings.Contains(err.Error(), `"other" instead of "s"`) {
					x.Error(err)
				}
			}
			x.told(name, o.of("session"))
		}
		p := &failingBroker{}
		c := x.behind(p, nil)
		r := x.receives(c, nil)
		if _, err := r.AcceptSession(left, "s"); !errors.Is(err, context.Canceled) || p.count("accept") != 0 {
			x.Errorf("a caller that left: %v after %d calls", err, p.count("accept"))
		}
		_, err := r.NextSession(x.Context())
		x.failed("no session", err, queue.ErrNoSession, op)
		x.Must(c.Close(x.Context()))
		before := p.count("accept")
		_, err = r.AcceptSession(x.Context(), "s")
		x.failed("a closed client", err, queue.ErrClosed, op)
		if p.count("accept") != before {
			x.Error("a closed client asks the broker")
		}
	})
}

// TestClientThatClosesBesideAccept: the session is given back, and not returned.
func TestClientThatClosesBesideAccept(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		o, p := &diary{}, &failingBroker{}
		c := x.behind(p, func(c *queue.Options) { c.Observer = o })
		r := x.receives(c, nil)
		p.hook = func(call string) {
			if call == "accept" {
				p.set(func() { p.hook = nil })
				go func() { _ = c.Close(context.Background()) }()
				x.Wait(time.Second)
			}
		}
		s, err := r.AcceptSession(x.Context(), "s")
		if s != nil || !errors.Is(err, queue.ErrClosed) {
			x.Errorf("%v, %v; want ErrClosed", s, err)
		}
	})
}

// TestSessionIsTold of its beginning and of one end, whatever ends it; its context says why.
func TestSessionIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		end   func(*fixture, *queue.Client, *queue.Session, *failingBroker)
		state observe.SessionState
		cause error
	}{
		"Close":               {func(x *fixture, _ *queue.Client, s *queue.Session, _ *failingBroker) { x.Must(s.Close(x.Context())) }, observe.SessionClosed, queue.ErrClosed},
		"Close of the client": {func(x *fixture, c *queue.Client, _ *queue.Session, _ *failingBroker) { x.Must(c.Close(x.Context())) }, observe.SessionClosed, queue.ErrClosed},
		"its lock":            {func(x *fixture, _ *queue.Client, _ *queue.Session, _ *failingBroker) { x.Wait(31 * time.Second) }, observe.SessionLost, queue.ErrSessionLost},
		"a renewal": {func(x *fixture, _ *queue.Client, s *queue.Session, p *failingBroker) {
			p.set(func() { p.fails = map[string]error{"renew session": driver.Errorf(driver.SessionLost, "gone")} })
			x.failed("Renew", s.Renew(x.Context()), queue.ErrSessionLost, "renew session")
		}, observe.SessionLost, queue.ErrSessionLost},
		"a receive": {func(x *fixture, _ *queue.Client, s *queue.Session, p *failingBroker) {
			p.set(func() { p.fails = map[string]error{"receive": driver.Errorf(driver.SessionLost, "gone")} })
			_, err := s.Receive(x.Context(), 1)
			x.failed("Receive", err, queue.ErrSessionLost, "receive")
		}, observe.SessionLost, queue.ErrSessionLost},
		"its state": {func(x *fixture, _ *queue.Client, s *queue.Session, p *failingBroker) {
			p.set(func() { p.fails = map[string]error{"state": driver.Errorf(driver.SessionLost, "gone")} })
			_, err := s.State(x.Context())
			x.failed("State", err, queue.ErrSessionLost, "get session state")
		}, observe.SessionLost, queue.ErrSessionLost},
		"a new state": {func(x *fixture, _ *queue.Client, s *queue.Session, p *failingBroker) {
			p.set(func() { p.fails = map[string]error{"set state": driver.Errorf(driver.SessionLost, "gone")} })
			x.failed("SetState", s.SetState(x.Context(), []byte("a")), queue.ErrSessionLost, "set session state")
		}, observe.SessionLost, queue.ErrSessionLost},
	} {
		inBubble(t, nil, func(x *fixture) {
			o, p := &diary{}, &failingBroker{}
			client := x.behind(p, func(c *queue.Options) { c.Observer = o })
			s := x.accept(x.receives(client, nil))
			if s.Context().Err() != nil || s.ID() != "s" || time.Until(s.LockedUntil()) != 30*time.Second {
				x.Errorf("%s: session %q until %s", name, s.ID(), s.LockedUntil())
			}
			c.end(x, client, s, p)
			p.set(func() { p.fails = nil })
			if s.Context().Err() == nil || !errors.Is(context.Cause(s.Context()), c.cause) {
				x.Errorf("%s: the context ended by %v, want %v", name, context.Cause(s.Context()), c.cause)
			}
			x.Must(s.Close(x.Context()))
			x.Must(s.Close(x.Context()))
			x.Wait(time.Minute)
			want := (&diary{})
			want.add("session %v", observe.SessionAccepted)
			want.add("session %v", c.state)
			x.told(name, o.of("session"), want.lines...)
			if name != "Close of the client" && p.count("close session") != 1 {
				x.Errorf("%s: the driver's session was closed %d times", name, p.count("close session"))
			}
			for op, f := range map[string]func() error{
				"receive":           func() error { _, err := s.Receive(x.Context(), 1); return err },
				"renew session":     func() error { return s.Renew(x.Context()) },
				"get session state": func() error { _, err := s.State(x.Context()); return err },
				"set session state": func() error { return s.SetState(x.Context(), nil) },
			} {
				before := len(p.counts())
				x.failed(name+", then", f(), c.cause, op)
				if len(p.counts()) != before {
					x.Errorf("%s, then %s: the driver is asked", name, op)
				}
			}
			if got := x.accept(x.receives(x.behind(&failingBroker{}, nil), nil)); got.ID() != "s" {
				x.Errorf("%s: the session is not free", name)
			}
		})
	}
}

// TestSessionCallsWithoutAContext and of callers that left change nothing.
func TestSessionCallsWithoutAContext(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{}
		s := x.accept(x.receives(x.behind(p, nil), nil))
		left, cancel := context.WithCancel(x.Context())
		cancel()
		for op, f := range map[string]func(context.Context) error{
			"receive":           func(ctx context.Context) error { _, err := s.Receive(ctx, 1); return err },
			"renew session":     s.Renew,
			"get session state": func(ctx context.Context) error { _, err := s.State(ctx); return err },
			"set session state": func(ctx context.Context) error { return s.SetState(ctx, []byte("a")) },
			"close session":     s.Close,
		} {
			x.failed(op, f(nil), queue.ErrInvalidOptions, op)
			if op == "close session" {
				continue
			}
			if err := f(left); !errors.Is(err, context.Canceled) {
				x.Errorf("%s of a caller that left: %v", op, err)
			}
		}
		if s.Context().Err() != nil || len(p.counts()) != 2 { // open and accept
			x.Errorf("%v, the session ended by %v", p.counts(), context.Cause(s.Context()))
		}
	})
}

// TestStateCallsOfOneSession: they are made one after the other, and a caller that leaves while
// another's is under way is told so.
func TestStateCallsOfOneSession(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		answered := make(chan struct{})
		p := &failingBroker{hook: func(call string) {
			if call == "state" {
				<-answered
			}
		}}
		s := x.accept(x.receives(x.behind(p, nil), nil))
		first := make(chan error)
		go func() {
			_, err := s.State(x.Context())
			first <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		if _, err := s.State(ctx); !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("State: %v", err)
		}
		if err := s.SetState(ctx, []byte("a")); !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("SetState: %v", err)
		}
		if p.count("state") != 1 || p.count("set state") != 0 {
			x.Errorf("calls beside the first: %v", p.counts())
		}
		close(answered)
		x.Must(<-first)
		x.Must(s.SetState(x.Context(), []byte("a")))
	})
}

// TestSessionOutlivesFailures: a call of the driver that fails is told, and the session goes on.
func TestSessionOutlivesFailures(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		o := &diary{}
		p := &failingBroker{fails: map[string]error{"renew session": errFailing, "receive": errFailing, "state": errFailing, "set state": errFailing, "close session": errFailing}}
		s := x.accept(x.receives(x.behind(p, func(c *queue.Options) { c.Observer = o }), nil))
		_, err := s.Receive(x.Context(), 1)
		x.failed("Receive", err, errFailing, "receive")
		_, err = s.ReceiveOne(x.Context())
		x.failed("ReceiveOne", err, errFailing, "receive")
		_, err = s.State(x.Context())
		x.failed("State", err, errFailing, "get session state")
		x.failed("SetState", s.SetState(x.Context(), []byte("a")), errFailing, "set session state")
		until := s.LockedUntil()
		x.Wait(time.Second)
		x.failed("Renew", s.Renew(x.Context()), errFailing, "renew session")
		if s.Context().Err() != nil || !s.LockedUntil().Equal(until) {
			x.Errorf("until %s, ended by %v", s.LockedUntil(), context.Cause(s.Context()))
		}
		p.set(func() { p.fails = map[string]error{"close session": errFailing} })
		x.Must(s.Renew(x.Context()))
		if got := s.LockedUntil().Sub(until); got != time.Second {
			x.Errorf("renewed by %s, want 1s", got)
		}
		x.told("Renew", o.of("renewed"), "renewed, failed true", "renewed, failed false")
		x.Wait(29 * time.Second) // past the first lock
		if s.Context().Err() != nil {
			x.Error("the session ended with its first lock")
		}
		x.failed("Close", s.Close(x.Context()), errFailing, "close session")
		x.Must(s.Close(x.Context()))
	})
}

// TestAllOfASession ends when nothing came, when the loop leaves a message unsettled or gives it
// back, and with an error that ends the session; rejected messages are passed over.
func TestAllOfASession(t *testing.T) {
	const all = 4
	for name, c := range map[string]struct {
		handle func(*fixture, *queue.Delivery)
		want   int
	}{
		"completed":     {func(x *fixture, d *queue.Delivery) { x.Must(d.Complete(x.Context())) }, all},
		"dead-lettered": {func(x *fixture, d *queue.Delivery) { x.Must(d.DeadLetter(x.Context(), queue.Reason{Code: "a"})) }, all},
		"abandoned":     {func(x *fixture, d *queue.Delivery) { x.Must(d.Abandon(x.Context(), 0)) }, 1},
		"released":      {func(x *fixture, d *queue.Delivery) { x.Must(d.Release(x.Context(), 0)) }, 1},
		"left":          {func(*fixture, *queue.Delivery) {}, 1},
	} {
		inBubble(t, nil, func(x *fixture) {
			for range all {
				x.Send(&queue.Message{SessionID: "s", Body: []byte("a")})
			}
			x.Inject(orders, driver.Message{ID: "plain", SessionID: "s", Body: []byte("plain")})
			x.Rewrite(orders, func(m []driver.Message) []driver.Message { // the plain one comes first
				return append([]driver.Message{m[all]}, m[:all]...)
			})
			s := x.accept(x.receives(x.behind(&failingBroker{}, nil), nil))
			n := 0
			for d, err := range s.All(x.Context()) {
				x.Must(err)
				n++
				c.handle(x, d)
			}
			if n != c.want {
				x.Errorf("%s: %d messages, want %d", name, n, c.want)
			}
			if name != "left" && s.Context().Err() != nil {
				x.Errorf("%s: the session ended by %v", name, context.Cause(s.Context()))
			}
		})
	}
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{fails: map[string]error{"receive": errFailing}}
		s := x.accept(x.receives(x.behind(p, nil), nil))
		n := 0
		for d, err := range s.All(x.Context()) {
			x.failed("All", err, errFailing, "receive")
			if n++; d != nil || n > 1 {
				x.Fatalf("%d results beside an error", n)
			}
		}
		if n != 1 {
			x.Error("All ends without its error")
		}
		p.set(func() { p.fails = nil })
		for d, err := range s.All(x.Context()) {
			x.Errorf("an empty session has %v, %v", d, err)
		}
		x.Must(s.Close(x.Context()))
		for _, err := range s.All(x.Context()) {
			x.failed("All of a session that is closed", err, queue.ErrClosed, "receive")
		}
	})
}

// TestStateOfASession: what the broker or the receiver cannot do, sealed and in plain, is refused
// or told.
func TestStateOfASession(t *testing.T) {
	const set, get = "set session state", "get session state"
	sealedLike := []byte(envelope.Marker + " begins so")
	plain := func(o *queue.Options) { without(o); o.Keys, o.Crypto = nil, queue.CryptoConfig{} }
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{caps: func(c *driver.Capabilities) { c.SessionState = driver.None }}
		s := x.accept(x.receives(x.behind(p, nil), nil))
		_, err := s.State(x.Context())
		x.failed("State", err, errors.ErrUnsupported, get)
		x.failed("SetState", s.SetState(x.Context(), nil), errors.ErrUnsupported, set)
		x.Must(s.Close(x.Context()))

		// A CryptoProvider of another maker, without Keys, seals no state.
		aes, err := queue.NewAESGCM(x.Ring)
		x.Must(err)
		s = x.accept(x.receives(x.behind(&failingBroker{}, func(c *queue.Options) { c.Keys, c.CryptoProvider = nil, slowCrypto{aes} }), nil))
		x.failed("SetState", s.SetState(x.Context(), []byte("a")), errors.ErrUnsupported, set)
		x.Must(s.Close(x.Context()))

		// In plain: stored as it is, told each time, and nothing that looks sealed.
		o := &diary{}
		s = x.accept(x.receives(x.behind(&failingBroker{}, func(c *queue.Options) { plain(c); c.Observer = o }), nil))
		x.Must(s.SetState(x.Context(), nil))
		if n := x.logged("Session state stored WITHOUT encryption"); n != 0 {
			x.Errorf("clearing a state is told %d times", n)
		}
		x.Must(s.SetState(x.Context(), []byte("plain")))
		if n := x.logged("Session state stored WITHOUT encryption"); n != 1 {
			x.Errorf("a plain state is told %d times", n)
		}
		if b, err := s.State(x.Context()); err != nil || string(b) != "plain" {
			x.Errorf("State = %q, %v", b, err)
		}
		if n := x.logged("Session state read WITHOUT encryption"); n != 1 {
			x.Errorf("reading a plain state is told %d times", n)
		}
		x.failed("SetState", s.SetState(x.Context(), sealedLike), queue.ErrMarkerCollision, set)
		if b, err := s.State(x.Context()); err != nil || string(b) != "plain" {
			x.Errorf("a state that was refused is stored: %q, %v", b, err)
		}
		x.told("in plain", o.of("crypto error"))
		x.Must(s.Close(x.Context()))

		// The same state where plaintext is refused.
		o = &diary{}
		s = x.accept(x.receives(x.behind(&failingBroker{}, func(c *queue.Options) { c.Observer = o }), nil))
		b, err := s.State(x.Context())
		x.failed("State", err, queue.ErrUnencryptedMessage, get)
		if b != nil || x.logged("Session state refused") != 1 {
			x.Errorf("%q, %d lines", b, x.logged("Session state refused"))
		}
		x.told("refused", o.of("crypto error"), "crypto error plaintext_rejected")
		before := x.logged("WITHOUT encryption")
		x.Must(s.SetState(x.Context(), sealedLike)) // sealed, it may begin as it likes
		if b, err := s.State(x.Context()); err != nil || string(b) != string(sealedLike) || x.logged("WITHOUT encryption") != before {
			x.Errorf("State = %q, %v", b, err)
		}
		x.Must(s.Close(x.Context()))

		// Keys of which one part is away.
		p = &failingBroker{}
		half := &halfKeys{Provider: x.Ring}
		s = x.accept(x.receives(x.behind(p, func(c *queue.Options) { c.Keys = half }), nil))
		half.current = errFailing
		x.failed("SetState", s.SetState(x.Context(), []byte("a")), queue.ErrEncryptionFailed, set)
		if p.count("set state") != 0 {
			x.Error("a state that was not sealed reached the broker")
		}
		half.key = errFailing
		x.Wait(2 * time.Hour)
	})
}

// TestStateIsSealedAnew under the current key when it is read, unless that fails.
func TestStateIsSealedAnew(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{}
		half := &halfKeys{Provider: x.Ring}
		r := x.receives(x.behind(p, func(c *queue.Options) { c.Keys = half }), nil)
		s := x.accept(r)
		x.Must(s.SetState(x.Context(), []byte("state")))
		read := func(what string, sets int) {
			x.Helper()
			before := p.count("set state")
			if b, err := s.State(x.Context()); err != nil || string(b) != "state" {
				x.Errorf("%s: State = %q, %v", what, b, err)
			}
			if got := p.count("set state") - before; got != sets {
				x.Errorf("%s: stored %d times, want %d", what, got, sets)
			}
		}
		read("under the current key", 0)
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		x.Must(x.Ring.SetCurrent("k2"))
		x.Wait(10 * time.Minute)
		s = x.accept(r)
		p.set(func() { p.fails = map[string]error{"set state": errFailing} })
		read("the broker fails", 1)
		p.set(func() { p.fails = nil })
		read("under another key", 1)
		read("once", 0)
	})
}

// slowly is an Observer that takes a while over a session.
type slowly struct{ observe.Nop }

func (slowly) Session(context.Context, observe.Source, observe.Session) { time.Sleep(time.Second) } // of the bubble

// TestCloseOfASessionAnswers with what the driver says, however long an Observer takes.
func TestCloseOfASessionAnswers(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{fails: map[string]error{"close session": errFailing}}
		s := x.accept(x.receives(x.behind(p, func(c *queue.Options) { c.Observer = slowly{} }), nil))
		x.failed("Close", s.Close(x.Context()), errFailing, "close session")
		if n := p.count("close session"); n != 1 {
			x.Errorf("it was closed %d times", n)
		}
	})
}

// closing is an Observer that closes a session which it is told was lost.
type closing struct {
	observe.Nop
	s atomic.Pointer[queue.Session]
}

func (c *closing) Session(ctx context.Context, _ observe.Source, e observe.Session) {
	if e.State == observe.SessionLost {
		_ = c.s.Load().Close(ctx)
	}
}

// TestLostSessionIsLetGoOnce although it is closed meanwhile.
func TestLostSessionIsLetGoOnce(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		o, p := &closing{}, &failingBroker{}
		s := x.accept(x.receives(x.behind(p, func(c *queue.Options) { c.Observer = o }), nil))
		o.s.Store(s)
		x.Wait(time.Minute)
		x.Must(s.Close(x.Context()))
		if n := p.count("close session"); n != 1 || !errors.Is(context.Cause(s.Context()), queue.ErrSessionLost) {
			x.Errorf("the driver's session was closed %d times, by %v; want once, when it was lost", n, context.Cause(s.Context()))
		}
	})
}

// TestSessionWithoutAnEnd: a lock that has no end in time ends by Close alone.
func TestSessionWithoutAnEnd(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{endless: true}
		s := x.accept(x.receives(x.behind(p, nil), nil))
		x.Wait(time.Hour)
		if err := s.Context().Err(); err != nil || !s.LockedUntil().IsZero() {
			x.Errorf("after an hour: %v, locked until %s", context.Cause(s.Context()), s.LockedUntil())
		}
		x.Must(s.Close(x.Context()))
		if n := p.count("close session"); n != 1 || !errors.Is(context.Cause(s.Context()), queue.ErrClosed) {
			x.Errorf("the driver's session was closed %d times, by %v", n, context.Cause(s.Context()))
		}
	})
}

// TestStateStaysAsItIs if the receiver seals nothing, although another key is current.
func TestStateStaysAsItIs(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s := x.accept(x.Receiver(orders, nil))
		x.Must(s.SetState(x.Context(), []byte("state")))
		x.Must(s.Close(x.Context()))
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		x.Must(x.Ring.SetCurrent("k2"))
		p := &failingBroker{}
		s = x.accept(x.receives(x.behind(p, func(o *queue.Options) { o.Crypto.Enabled = false }), nil))
		if b, err := s.State(x.Context()); err != nil || string(b) != "state" || p.count("set state") != 0 {
			x.Errorf("State = %q, %v, stored %d times; want what there is, and not stored", b, err, p.count("set state"))
		}
	})
}

// On a broker without a delay a session is held, and its lock renewed, for as long as its
// message waits for a key. Close ends that: another receiver has the session at once.
func TestSessionIsHeldUntilItsMessageIsDue(t *testing.T) {
	for name, c := range map[string]struct {
		closes bool
		least  time.Duration // until another receiver has the session
		most   time.Duration
	}{
		"closed": {true, 3 * time.Minute, 3*time.Minute + time.Second},
		"due":    {false, 7 * time.Minute, 11 * time.Minute},
	} {
		inBubble(t, func(_ *fixture, o *queue.Options) { o.Crypto.MaxMessageAge = 24 * time.Hour }, func(x *fixture) {
			p := &fixturetest.FaultyBroker{Broker: x.Broker.Connect(), Caps: func(c *driver.Capabilities) { c.AbandonDelay = driver.None }}
			client, err := queue.New(p, &queue.Options{Keys: newRing(x.T, "k1"), Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, MaxMessageAge: 24 * time.Hour}})
			x.Must(err)
			x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
			x.Must(x.Ring.SetCurrent("k2"))
			x.Send(&queue.Message{SessionID: "s", Body: []byte("a")})
			// Of two deliveries the first waits for half of the horizon or more.
			r, err := client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: 2, RotationHorizon: 10 * time.Minute})
			x.Must(err)
			s, err := r.NextSession(x.Context())
			x.Must(err)
			begin := time.Now()
			if _, err := s.ReceiveOne(x.Context()); !errors.Is(err, queue.ErrKeyNotFound) || !errors.Is(err, queue.ErrSessionLost) {
				x.Fatalf("%s: ReceiveOne = %v", name, err)
			}
			if c.closes {
				x.Wait(3 * time.Minute)
				x.Must(client.Close(x.Context()))
			}
			other := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second})
			for {
				s, err := other.NextSession(x.Context())
				if err == nil {
					x.Must(s.Close(x.Context()))
					break
				}
				if !errors.Is(err, queue.ErrNoSession) || time.Since(begin) > time.Hour {
					x.Fatalf("%s: NextSession = %v", name, err)
				}
			}
			if took := time.Since(begin); took < c.least || took > c.most {
				x.Errorf("%s: another receiver has the session after %s, want %s to %s", name, took, c.least, c.most)
			}
			x.Wait(time.Hour) // nothing renews it any more
			x.Must(client.Close(x.Context()))
		})
	}
}

// TestCallerThatLeavesABlockedSession: what must wait is not overtaken because the context of
// the call that found it ended meanwhile.
func TestCallerThatLeavesABlockedSession(t *testing.T) {
	for name, delay := range map[string]driver.Support{"a broker with a delay": driver.Native, "a broker without": driver.None} {
		inBubble(t, nil, func(x *fixture) {
			x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
			x.Must(x.Ring.SetCurrent("k2"))
			x.Send(&queue.Message{ID: "1", SessionID: "s", Body: []byte("a")})
			x.Must(x.Ring.SetCurrent("k1"))
			x.Send(&queue.Message{ID: "2", SessionID: "s", Body: []byte("a")})
			ctx, cancel := context.WithCancel(x.Context())
			r := x.receives(x.behind(&failingBroker{caps: func(c *driver.Capabilities) { c.AbandonDelay = delay }}, func(o *queue.Options) {
				o.Keys, o.KeysFor = newRing(x.T, "k1"), nil
				o.OnRejected = func(context.Context, *queue.RejectedError) { cancel() }
			}), nil)
			s := x.accept(r)
			if d, err := s.Receive(ctx, 2); len(d) != 0 || !errors.Is(err, context.Canceled) {
				x.Fatalf("%s: Receive = %v, %v; want context.Canceled", name, d, err)
			}
			d, err := s.Receive(x.Context(), 2)
			if len(d) != 0 || !errors.Is(err, queue.ErrSessionLost) || !errors.Is(err, queue.ErrKeyNotFound) {
				x.Errorf("%s: the next Receive = %v, %v; want nothing, because the first message must wait", name, d, err)
			}
		})
	}
}

// leavingStore ends a context beside the claim that it fails for.
type leavingStore struct {
	replay.Store
	cancel context.CancelFunc
}

func (s *leavingStore) Begin(ctx context.Context, group string, all []replay.Request) ([]replay.Claim, error) {
	s.cancel()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.Store.Begin(ctx, group, all)
}

// TestMessageOfASessionThatIsNotGivenBack: if the caller of a Receive left, and what came for it
// could not be given back, the message stays locked, and none behind it may overtake it.
func TestMessageOfASessionThatIsNotGivenBack(t *testing.T) {
	for name, leave := range map[string]func(*queue.Options, context.CancelFunc){
		"after its claim": func(o *queue.Options, f context.CancelFunc) { o.Observer = &leaving{cancel: f} },
		"before":          func(o *queue.Options, f context.CancelFunc) { o.ReplayStore = &leavingStore{o.ReplayStore, f} },
	} {
		inBubble(t, nil, func(x *fixture) {
			for _, id := range []string{"1", "2"} {
				x.Send(&queue.Message{ID: id, SessionID: "s", Body: []byte("a")})
			}
			ctx, cancel := context.WithCancel(x.Context())
			p := &failingBroker{}
			s := x.accept(x.receives(x.behind(p, func(o *queue.Options) { leave(o, cancel) }), nil))
			p.set(func() { p.fails = map[string]error{"settle": errFailing} })
			if d, err := s.Receive(ctx, 1); len(d) != 0 || !errors.Is(err, context.Canceled) {
				x.Fatalf("%s: Receive = %v, %v; want context.Canceled", name, d, err)
			}
			p.set(func() { p.fails = nil })
			if d, err := s.Receive(x.Context(), 1); len(d) != 0 || !errors.Is(err, queue.ErrSessionLost) || !errors.Is(err, errFailing) {
				x.Errorf("%s: the next Receive = %v, %v; want nothing, because the first message is locked", name, d, err)
			}
			x.Must(s.Close(x.Context()))
			other := x.accept(x.receives(x.behind(&failingBroker{}, nil), nil))
			if d, err := other.ReceiveOne(x.Context()); err != nil || d.ID != "1" {
				x.Errorf("%s: another receiver has %v, %v; want the first message", name, d, err)
			}
		})
	}
}
