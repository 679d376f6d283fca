package sbemulator_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// TestLinkErrors breaks the protocol where the link ends.
func TestLinkErrors(t *testing.T) {
	id, other := uint32(0), uint32(7)
	for name, c := range map[string]struct {
		frames    func(p *peer)
		condition wire.Symbol
	}{
		"no delivery ID": {func(p *peer) { p.send(0, &wire.Transfer{}, encoded("x")...) }, "amqp:invalid-field"},
		"a message within a message": {func(p *peer) {
			p.send(0, &wire.Transfer{DeliveryID: &id, More: true}, 1)
			p.send(0, &wire.Transfer{DeliveryID: &other}, 2)
		}, "amqp:invalid-field"},
		"too large and settled": {func(p *peer) {
			p.oversize(id, true)
		}, "amqp:link:message-size-exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil, nil)
			p := open(t, s, 64<<10, 100)
			p.attach(0, false)
			c.frames(p)
			if d := expect[*wire.Detach](p); d.Error == nil || d.Error.Condition != c.condition || !d.Closed {
				t.Fatalf("detach %+v", d.Error)
			}
			p.send(0, &wire.Transfer{DeliveryID: &id}, encoded("in flight")...) // ignored
			p.send(0, &wire.Detach{Closed: true})
			p.attach(0, false) // the handle is free again, the session is whole
			wantStored(t, s, "q", 0)
		})
	}
}

// oversize sends a message of 300,000 bytes in frames.
func (p *peer) oversize(id uint32, settled bool) {
	p.t.Helper()
	part := bytes.Repeat([]byte{1}, 60_000)
	for i := range 5 {
		tr := &wire.Transfer{More: i < 4}
		if i == 0 {
			tr.DeliveryID, tr.Settled = &id, &settled
		}
		p.send(0, tr, part...)
	}
}

// TestTransferTooLarge: a message above the limit is rejected, and the link goes on.
func TestTransferTooLarge(t *testing.T) {
	s := start(t, nil, nil)
	p := open(t, s, 64<<10, 100)
	p.attach(0, false)
	p.oversize(0, false)
	d := expect[*wire.Disposition](p)
	if r, ok := d.State.(wire.Rejected); !ok || r.Error == nil || r.Error.Condition != "amqp:link:message-size-exceeded" || !d.Settled {
		t.Fatalf("disposition %+v", d)
	}
	next := uint32(1)
	p.send(0, &wire.Transfer{DeliveryID: &next}, encoded("small")...)
	if d := expect[*wire.Disposition](p); d.First != next || d.State != (wire.Accepted{}) {
		t.Errorf("disposition %+v", d)
	}
	wantStored(t, s, "q", 1)
}

// TestSessionFilterForm: the granted session is told in the form that was asked.
func TestSessionFilterForm(t *testing.T) {
	const name = wire.Symbol("com.microsoft:session-filter")
	code := uint64(0x137000000C)
	for _, c := range []struct {
		what        string
		asked, want any
	}{
		{"string", "a", "a"},
		{"described", wire.Described{Descriptor: code, Value: "a"}, wire.Described{Descriptor: code, Value: "a"}},
		{"described by name", wire.Described{Descriptor: name, Value: "a"}, wire.Described{Descriptor: name, Value: "a"}},
		{"next", nil, "a"},
		{"next, described", wire.Described{Descriptor: code}, wire.Described{Descriptor: code, Value: "a"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := start(t, nil, sessional())
			if _, err := s.Insert("q", &sbemulator.Message{SessionID: new("a")}); err != nil {
				t.Fatal(err)
			}
			p := open(t, s, 64<<10, 100)
			p.send(0, &wire.Attach{Name: "l", Receiver: true, Source: &wire.Source{Address: "q", Filter: wire.Map{{Key: name, Value: c.asked}}}})
			a := expect[*wire.Attach](p)
			if got, _ := a.Source.Filter.Get(string(name)); got != c.want {
				t.Errorf("filter %#v, want %#v", got, c.want)
			}
		})
	}
}

// TestWaitingAttachIsGivenUp: a client that detaches, ends its session or is
// gone while it waits for a session is not given one.
func TestWaitingAttachIsGivenUp(t *testing.T) {
	for name, leave := range map[string]func(p *peer){
		"detach": func(p *peer) {
			p.send(0, &wire.Detach{Closed: true})
			if a := expect[*wire.Attach](p); a.Source != nil || a.Target != nil {
				p.t.Errorf("attach %+v", a)
			}
			expect[*wire.Detach](p)
		},
		"end":        func(p *peer) { p.send(0, &wire.End{}); expect[*wire.End](p) },
		"close":      func(p *peer) { p.send(0, &wire.Close{}); expect[*wire.Close](p) },
		"connection": func(p *peer) { _ = p.nc.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil, sessional())
			p := open(t, s, 64<<10, 100)
			p.send(0, &wire.Attach{Name: "next", Receiver: true, Target: &wire.Target{}, Source: &wire.Source{Address: "q", Filter: wire.Map{
				{Key: wire.Symbol("com.microsoft:session-filter"), Value: wire.Described{Descriptor: uint64(0x137000000C)}}}}})
			for waitingFor(t, s) == 0 {
				p.write([]byte{0, 0, 0, 8, 2, 0, 0, 0})
			}
			leave(p)
			for waitingFor(t, s) > 0 {
				continue
			}
			if _, err := s.Insert("q", &sbemulator.Message{SessionID: new("a")}); err != nil {
				t.Fatal(err)
			}
			if st := must[sbemulator.Stats](t)(s.Stats("q")); st.Sessions != 0 {
				t.Error("the session is still held, and its client is gone")
			}
		})
	}
}

// TestNextSessionTimeout: the client says how long it wants to wait.
func TestNextSessionTimeout(t *testing.T) {
	s := start(t, frozen, sessional()) // by the system's clock
	p := open(t, s, 64<<10, 100)
	p.send(0, &wire.Attach{Name: "next", Receiver: true, Target: &wire.Target{}, Source: &wire.Source{Address: "q", Filter: wire.Map{
		{Key: wire.Symbol("com.microsoft:session-filter"), Value: wire.Described{Descriptor: uint64(0x137000000C)}}}},
		Properties: wire.Map{{Key: wire.Symbol("com.microsoft:timeout"), Value: uint32(10)}}})
	if a := expect[*wire.Attach](p); a.Source != nil {
		t.Errorf("attach %+v", a)
	}
	if d := expect[*wire.Detach](p); d.Error == nil || d.Error.Condition != "com.microsoft:timeout" {
		t.Errorf("detach %+v", d.Error)
	}
}

// TestLinkCloseKeepsLocks: closing a receiver does not give back what it holds.
func TestLinkCloseKeepsLocks(t *testing.T) {
	s := start(t, frozen, nil)
	c := connect(t, s)
	send(t, c, "q", text("x"))
	r := receiver(t, c, "q", nil)
	one(t, r)
	if err := r.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	if m := wantStored(t, s, "q", 1); !m[0].Locked {
		t.Error("closing the receiver unlocked its message")
	}
	advance(t, s, time.Minute)
	if m := one(t, receiver(t, c, "q", nil)); m.DeliveryCount != 2 {
		t.Errorf("delivery count %d", m.DeliveryCount)
	}
}

func TestIdleLinks(t *testing.T) {
	s := start(t, &sbemulator.Options{FrozenClock: true, IdleLinkTimeout: 10 * time.Minute}, nil)
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	for range 3 {
		if err := sender.SendMessage(within(t), text("x"), nil); err != nil {
			t.Fatal(err)
		}
		advance(t, s, 9*time.Minute)
	}
	attaches := inject(t, s, sbemulator.Fault{On: sbemulator.OnAttach})
	if err := sender.SendMessage(within(t), text("x"), nil); err != nil {
		t.Fatal(err)
	}
	wantHits(t, attaches, 0)
	advance(t, s, 10*time.Minute)
	if err := sender.SendMessage(within(t), text("x"), nil); err != nil {
		t.Fatal(err)
	}
	wantHits(t, attaches, 3) // its own and two of $management
	wantStored(t, s, "q", 5)
}
