package sbemulator_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
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
	// The window is renewed before it is used up.
	f, _ = p.read()
	if w, ok := f.(*wire.Flow); !ok || w.Handle != nil || w.IncomingWindow != flow.IncomingWindow || *w.NextIncomingID > flow.IncomingWindow {
		t.Fatalf("%T %+v, want a window", f, f)
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
	receive := frame(&wire.Attach{Name: "r", Handle: 1, Receiver: true, Source: &wire.Source{Address: "q"}})
	credit := frame(&wire.Flow{NextIncomingID: new(uint32), IncomingWindow: 9, OutgoingWindow: 9, Handle: new(uint32(1)), DeliveryCount: new(uint32), LinkCredit: new(uint32(9))})
	f.Add(bytes.Join([][]byte{begin, attach, receive, credit, frame(&wire.Transfer{DeliveryID: new(uint32)}, encoded("x")...),
		frame(&wire.Disposition{Receiver: true, State: wire.Rejected{}}), frame(&wire.Disposition{Receiver: true, State: wire.Accepted{}})}, nil))
	filter := wire.Map{{Key: wire.Symbol("com.microsoft:session-filter"), Value: "s"}}
	f.Add(bytes.Join([][]byte{begin, frame(&wire.Attach{Name: "s", Receiver: true, Source: &wire.Source{Address: "q", Filter: filter}}), frame(&wire.Detach{Closed: true}), frame(&wire.End{})}, nil))
	for _, to := range []string{"q/$management", "$cbs"} {
		m := &wire.Message{}
		m.SetProperties(wire.Properties{MessageID: "1", ReplyTo: new("answers")})
		m.SetApplication(wire.Map{{Key: "operation", Value: "com.microsoft:peek-message"}, {Key: "name", Value: "q"}})
		m.SetValue(wire.Map{{Key: "from-sequence-number", Value: int64(1)}, {Key: "message-count", Value: int32(1)}})
		f.Add(bytes.Join([][]byte{
			begin, frame(&wire.Attach{Name: "a", Target: &wire.Target{Address: to}}), frame(&wire.Transfer{DeliveryID: new(uint32)}, m.Append(nil)...),
			frame(&wire.Attach{Name: "b", Handle: 1, Receiver: true, Source: &wire.Source{Address: to}, Target: &wire.Target{Address: "answers"}}), credit,
		}, nil))
	}
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

// TestEndOfNothing: the end of a session that never began costs the connection's
// other sessions nothing.
func TestEndOfNothing(t *testing.T) {
	p := open(t, start(t, nil, nil), 64<<10, 100)
	p.send(7, &wire.End{})
	p.send(1, &wire.Begin{IncomingWindow: 10, OutgoingWindow: 10})
	expect[*wire.Begin](p)
	p.send(0, &wire.End{})
	expect[*wire.End](p)
}
