package sbemulator_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/azure/sbemulator"
	"github.com/queue-runtime/queue/azure/sbemulator/internal/wire"
)

// TestSmallFramesAndWindow delivers a message in the smallest frames to a client
// that takes two at a time.
func TestSmallFramesAndWindow(t *testing.T) {
	s := start(t, nil, nil)
	if _, err := s.Insert("q", &sbemulator.Message{Body: bytes.Repeat([]byte("x"), 3000)}); err != nil {
		t.Fatal(err)
	}
	p := open(t, s, wire.MinMaxFrame, 2)
	p.attach(0, true)
	flow := func(next, window uint32, echo bool) {
		p.send(0, &wire.Flow{NextIncomingID: &next, IncomingWindow: window, OutgoingWindow: 100,
			Handle: new(uint32), DeliveryCount: new(uint32), LinkCredit: new(uint32(1)), Echo: echo})
	}
	var got []byte
	seen := uint32(0)
	for more := true; more; {
		flow(seen, 2, false)
		for n := 0; n < 2 && more; n++ {
			perf, payload := p.read()
			tr, ok := perf.(*wire.Transfer)
			if !ok {
				t.Fatalf("%T", perf)
			}
			if (seen == 0) != (tr.DeliveryID != nil) {
				t.Errorf("transfer %d: delivery ID %v", seen, tr.DeliveryID)
			}
			got = append(got, payload...)
			seen++
			more = tr.More
		}
		flow(seen, 0, true) // nothing comes before the echo: the window is used up
		if perf, _ := p.read(); perf.(*wire.Flow).NextOutgoingID != seen {
			t.Fatalf("%+v after %d transfers", perf, seen)
		}
	}
	m, err := wire.ParseMessage(got)
	if err != nil || len(m.Body()) != 3000 || seen < 8 {
		t.Errorf("%d frames, body of %d bytes, %v", seen, len(m.Body()), err)
	}
}

// TestTransferInFrames sends a message in several frames, another that is
// aborted, and one that is settled.
func TestTransferInFrames(t *testing.T) {
	s := start(t, nil, nil)
	p := open(t, s, 64<<10, 100)
	p.attach(0, false)
	raw := encoded("whole")
	id, format := uint32(0), uint32(0)
	p.send(0, &wire.Transfer{DeliveryID: &id, DeliveryTag: []byte{0}, MessageFormat: &format, More: true}, raw[:5]...)
	p.send(0, &wire.Transfer{More: true}, raw[5:9]...)
	p.send(0, &wire.Transfer{}, raw[9:]...)
	if d := expect[*wire.Disposition](p); d.First != 0 || !d.Settled || !d.Receiver || d.State != (wire.Accepted{}) {
		t.Errorf("disposition %+v", d)
	}
	id = 1
	p.send(0, &wire.Transfer{DeliveryID: &id, DeliveryTag: []byte{1}, MessageFormat: &format, More: true}, raw[:5]...)
	p.send(0, &wire.Transfer{Aborted: true})
	id = 2
	p.send(0, &wire.Transfer{DeliveryID: &id, DeliveryTag: []byte{2}, MessageFormat: &format, Settled: new(true)}, raw...)
	id = 3
	p.send(0, &wire.Transfer{DeliveryID: &id, DeliveryTag: []byte{3}, MessageFormat: &format}, []byte("garbage")...)
	if d := expect[*wire.Disposition](p); d.First != 3 {
		t.Errorf("disposition %+v", d)
	} else if r, ok := d.State.(wire.Rejected); !ok || r.Error.Condition != "amqp:decode-error" {
		t.Errorf("state %+v", d.State)
	}
	wantStored(t, s, "q", 2)
}

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
		"too large": {func(p *peer) {
			part := bytes.Repeat([]byte{1}, 60_000)
			for i := range 5 {
				tr := &wire.Transfer{More: i < 4}
				if i == 0 {
					tr.DeliveryID = &id
				}
				p.send(0, tr, part...)
			}
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

// TestSessionErrors breaks the protocol where the session ends.
func TestSessionErrors(t *testing.T) {
	for name, c := range map[string]struct {
		frames    func(p *peer)
		condition wire.Symbol
	}{
		"transfer on a free handle": {func(p *peer) { p.send(0, &wire.Transfer{Handle: 9}) }, "amqp:session:unattached-handle"},
		"transfer on a receiver": {func(p *peer) {
			p.attach(1, true)
			p.send(0, &wire.Transfer{Handle: 1})
		}, "amqp:session:unattached-handle"},
		"flow on a free handle": {func(p *peer) { p.credit(9, 1) }, "amqp:session:unattached-handle"},
		"detach of a free one":  {func(p *peer) { p.send(0, &wire.Detach{Handle: 9}) }, "amqp:session:unattached-handle"},
		"a handle twice": {func(p *peer) {
			p.attach(1, true)
			p.send(0, &wire.Attach{Name: "x", Handle: 1, Receiver: true})
		}, "amqp:session:handle-in-use"},
		"a handle beyond the limit": {func(p *peer) { p.send(0, &wire.Attach{Name: "x", Handle: 255}) }, "amqp:session:handle-in-use"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil, nil)
			p := open(t, s, 64<<10, 100)
			c.frames(p)
			if e := expect[*wire.End](p); e.Error == nil || e.Error.Condition != c.condition {
				t.Fatalf("end %+v", e.Error)
			}
			p.send(0, &wire.Transfer{}) // in flight: ignored
			p.send(0, &wire.End{})
			p.send(0, &wire.Begin{IncomingWindow: 10, OutgoingWindow: 10}) // the channel is free again
			expect[*wire.Begin](p)
		})
	}
}

// TestCreditCountsMessages: frames of one message need one credit, however many
// they are, and more frames than the window had at first.
func TestCreditCountsMessages(t *testing.T) {
	s := start(t, nil, nil)
	p := open(t, s, 64<<10, 100)
	p.attach(0, false)
	f, _ := p.read()
	flow, ok := f.(*wire.Flow)
	if !ok || flow.LinkCredit == nil || *flow.LinkCredit == 0 {
		t.Fatalf("%T %+v, want credit", f, f)
	}
	id := uint32(0)
	p.send(0, &wire.Transfer{DeliveryID: &id, More: true}, encoded("x")...)
	for range flow.IncomingWindow {
		p.send(0, &wire.Transfer{More: true})
	}
	p.send(0, &wire.Transfer{})
	if d := expect[*wire.Disposition](p); d.State != (wire.Accepted{}) {
		t.Errorf("state %+v", d.State)
	}
	wantStored(t, s, "q", 1)
}

// TestDrain: what is asked for and not there is given up.
func TestDrain(t *testing.T) {
	s := start(t, nil, nil)
	for range 2 {
		if _, err := s.Insert("q", &sbemulator.Message{}); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, s, 64<<10, 100)
	p.attach(0, true)
	p.send(0, &wire.Flow{NextIncomingID: new(uint32), IncomingWindow: 100, OutgoingWindow: 100,
		Handle: new(uint32), DeliveryCount: new(uint32), LinkCredit: new(uint32(5)), Drain: true})
	for range 2 {
		expect[*wire.Transfer](p)
	}
	f, _ := p.read()
	if flow, ok := f.(*wire.Flow); !ok || !flow.Drain || *flow.LinkCredit != 0 || *flow.DeliveryCount != 5 {
		t.Errorf("%T %+v", f, f)
	}
}

// TestDispositionRange settles several deliveries by one frame, also by one
// whose range is absurd.
func TestDispositionRange(t *testing.T) {
	s := start(t, nil, nil)
	for range 6 {
		if _, err := s.Insert("q", &sbemulator.Message{}); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, s, 64<<10, 100)
	p.attach(0, true)
	p.credit(0, 6)
	for i := range uint32(6) {
		if tr := expect[*wire.Transfer](p); *tr.DeliveryID != i || len(tr.DeliveryTag) != 16 {
			t.Fatalf("transfer %+v", tr)
		}
	}
	p.send(0, &wire.Disposition{Receiver: true, First: 1, Last: new(uint32(2)), State: wire.Accepted{}})
	for i := range uint32(2) {
		if d := expect[*wire.Disposition](p); d.First != i+1 || d.Receiver || !d.Settled || d.State != (wire.Accepted{}) {
			t.Errorf("disposition %+v", d)
		}
	}
	wantStored(t, s, "q", 4)
	p.send(0, &wire.Disposition{First: 0, Settled: true, State: wire.Accepted{}})                                 // as a sender: means nothing
	p.send(0, &wire.Disposition{Receiver: true, First: 0, State: wire.Received{}})                                // no outcome
	p.send(0, &wire.Disposition{Receiver: true, First: 3, Last: new(uint32(2)), State: wire.Accepted{}})          // backwards
	p.send(0, &wire.Disposition{Receiver: true, First: 1, State: wire.Accepted{}})                                // settled before
	p.send(0, &wire.Disposition{Receiver: true, First: 5, Settled: true})                                         // no state: given back
	p.send(0, &wire.Disposition{Receiver: true, First: 0, Last: new(uint32(0x7fffffff)), State: wire.Released{}}) // the rest
	for _, i := range []uint32{0, 3, 4} {
		if d := expect[*wire.Disposition](p); d.First != i || d.State != (wire.Released{}) {
			t.Errorf("disposition %+v, want of %d", d, i)
		}
	}
	for _, m := range wantStored(t, s, "q", 4) {
		if m.DeliveryCount != 0 || m.Locked {
			t.Errorf("stored %+v", m)
		}
	}
}

// TestRejectedWithoutDeadLetter: any rejection dead-letters, with its own
// condition for the reason.
func TestRejectedWithoutDeadLetter(t *testing.T) {
	s := start(t, nil, nil)
	if _, err := s.Insert("q", &sbemulator.Message{}); err != nil {
		t.Fatal(err)
	}
	p := open(t, s, 64<<10, 100)
	p.attach(0, true)
	p.credit(0, 1)
	expect[*wire.Transfer](p)
	p.send(0, &wire.Disposition{Receiver: true, State: wire.Rejected{Error: &wire.Error{Condition: "app:broken", Description: "why"}}})
	if d := expect[*wire.Disposition](p); d.State != (wire.Rejected{}) {
		t.Errorf("state %+v: an error would be taken for the settlement's own", d.State)
	}
	d := wantStored(t, s, "q/$DeadLetterQueue", 1)[0].ApplicationProperties
	if d["DeadLetterReason"] != "app:broken" || d["DeadLetterErrorDescription"] != "why" {
		t.Errorf("properties %v", d)
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
				t.Error("the session is held by nobody who is there")
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

// FuzzConnection feeds what follows open to a server: it must neither panic nor
// stop serving others.
func FuzzConnection(f *testing.F) {
	s, err := sbemulator.Start(&sbemulator.Options{AutoCreate: &sbemulator.QueueOptions{MaxBytes: 1 << 20}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	frame := func(p wire.Performative, payload ...byte) []byte {
		return wire.AppendFrame(nil, wire.FrameAMQP, 0, p, payload)
	}
	begin := frame(&wire.Begin{IncomingWindow: 10, OutgoingWindow: 10})
	attach := frame(&wire.Attach{Name: "l", Source: &wire.Source{Address: "q"}, Target: &wire.Target{Address: "q"}})
	f.Add(bytes.Join([][]byte{begin, attach, frame(&wire.Transfer{DeliveryID: new(uint32)}, encoded("x")...), frame(&wire.Close{})}, nil))
	f.Add(bytes.Join([][]byte{begin, frame(&wire.Attach{Name: "l", Receiver: true, Source: &wire.Source{Address: "q/$management"}})}, nil))
	f.Add([]byte(strings.Repeat("\x00", 16)))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := dial(t, s)
		p.write(wire.AppendProtocol(nil, wire.ProtocolAMQP))
		p.header(wire.ProtocolAMQP)
		p.send(0, &wire.Open{ContainerID: "peer", MaxFrameSize: 512})
		expect[*wire.Open](p)
		_, _ = p.nc.Write(append(b, frame(&wire.Close{})...))
		_ = p.nc.(interface{ CloseWrite() error }).CloseWrite()
		for {
			if _, err := wire.ReadFrame(p.r, 64<<10); err != nil {
				break
			}
		}
		if _, err := s.Stats("q"); err != nil && !errors.Is(err, sbemulator.ErrQueueNotFound) {
			t.Fatal(err)
		}
	})
}
