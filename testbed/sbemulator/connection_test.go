package sbemulator_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// peer speaks frames by hand: what the clients are too well-behaved for.
type peer struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

func dial(t *testing.T, s *sbemulator.Server) *peer {
	t.Helper()
	nc := must[net.Conn](t)(net.Dial("tcp", s.Addr().String()))
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	return &peer{t, nc, bufio.NewReader(nc)}
}

// open is a peer after the exchange of open and of begin on channel 0, with the
// frame size and the incoming window that it wants.
func open(t *testing.T, s *sbemulator.Server, frame, window uint32) *peer {
	t.Helper()
	p := dial(t, s)
	p.write(wire.AppendProtocol(nil, wire.ProtocolAMQP))
	p.header(wire.ProtocolAMQP)
	p.send(0, &wire.Open{ContainerID: "peer", MaxFrameSize: frame, ChannelMax: 10})
	expect[*wire.Open](p)
	p.send(0, &wire.Begin{IncomingWindow: window, OutgoingWindow: 100, HandleMax: 10})
	if b := expect[*wire.Begin](p); b.RemoteChannel == nil || *b.RemoteChannel != 0 {
		t.Fatalf("begin %+v", b)
	}
	return p
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) send(channel uint16, perf wire.Performative, payload ...byte) {
	p.t.Helper()
	p.write(wire.AppendFrame(nil, wire.FrameAMQP, channel, perf, payload))
}

func (p *peer) header(want wire.Protocol) {
	p.t.Helper()
	if got, err := wire.ReadProtocol(p.r); err != nil || got != want {
		p.t.Fatalf("protocol %d, %v; want %d", got, err, want)
	}
}

func (p *peer) read() (wire.Performative, []byte) {
	p.t.Helper()
	for {
		f, err := wire.ReadFrame(p.r, 64<<10)
		if err != nil {
			p.t.Fatal(err)
		}
		if len(f.Body) == 0 {
			continue
		}
		perf, payload, err := wire.ParsePerformative(f.Type, f.Body)
		if err != nil {
			p.t.Fatal(err)
		}
		return perf, payload
	}
}

// expect reads up to the next performative of type T. Flows are passed over.
func expect[T wire.Performative](p *peer) T {
	p.t.Helper()
	for {
		perf, _ := p.read()
		if want, ok := perf.(T); ok {
			return want
		}
		if _, ok := perf.(*wire.Flow); !ok {
			p.t.Fatalf("%T %+v, want %T", perf, perf, *new(T))
		}
	}
}

// ended expects the connection to end without another frame.
func (p *peer) ended() {
	p.t.Helper()
	if b, err := io.ReadAll(p.r); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		p.t.Fatal(err)
	} else if len(b) > 0 {
		p.t.Errorf("% x after the end", b)
	}
}

func (p *peer) closed(condition wire.Symbol) {
	p.t.Helper()
	if c := expect[*wire.Close](p); c.Error == nil || c.Error.Condition != condition {
		p.t.Errorf("close %v, want %s", c.Error, condition)
	}
	p.ended()
}

// attach attaches handle h to q, as a sender or a receiver.
func (p *peer) attach(h uint32, receiver bool) *wire.Attach {
	p.t.Helper()
	p.send(0, &wire.Attach{Name: "link" + number(int(h)), Handle: h, Receiver: receiver,
		Source: &wire.Source{Address: "q"}, Target: &wire.Target{Address: "q"}, InitialDeliveryCount: new(uint32)})
	a := expect[*wire.Attach](p)
	if a.Handle != h || a.Receiver == receiver {
		p.t.Fatalf("attach %+v", a)
	}
	return a
}

func (p *peer) credit(h, n uint32) {
	p.t.Helper()
	p.send(0, &wire.Flow{NextIncomingID: new(uint32), IncomingWindow: 1000, OutgoingWindow: 100, Handle: &h, DeliveryCount: new(uint32), LinkCredit: &n})
}

func encoded(body string) []byte {
	m := &wire.Message{Header: wire.Header{Priority: 4}}
	m.SetData([]byte(body))
	return m.Append(nil)
}

// TestConnectionErrors breaks the protocol where only the connection can end.
func TestConnectionErrors(t *testing.T) {
	s := start(t, nil, nil)
	for name, c := range map[string]struct {
		frames    []byte
		condition wire.Symbol
	}{
		"size below a header": {[]byte{0, 0, 0, 7, 2, 0, 0, 0}, "amqp:connection:framing-error"},
		"size of 4 GiB":       {[]byte{255, 255, 255, 255, 2, 0, 0, 0}, "amqp:connection:framing-error"},
		"data offset":         {[]byte{0, 0, 0, 8, 1, 0, 0, 0}, "amqp:connection:framing-error"},
		"sasl frame":          {wire.AppendFrame(nil, wire.FrameSASL, 0, &wire.Outcome{}, nil), "amqp:connection:framing-error"},
		"garbage":             {[]byte{0, 0, 0, 12, 2, 0, 0, 0, 1, 2, 3, 4}, "amqp:decode-error"},
		"deep nesting":        {append([]byte{0, 0, 8, 8, 2, 0, 0, 0}, bytes.Repeat([]byte{0, 0x44}, 1024)...), "amqp:decode-error"},
		"a second open":       {wire.AppendFrame(nil, wire.FrameAMQP, 0, &wire.Open{ContainerID: "x"}, nil), "amqp:not-allowed"},
		"begin twice":         {wire.AppendFrame(nil, wire.FrameAMQP, 0, &wire.Begin{}, nil), "amqp:not-allowed"},
		"begin beyond limit":  {wire.AppendFrame(nil, wire.FrameAMQP, 5000, &wire.Begin{}, nil), "amqp:not-allowed"},
		"begin as an answer":  {wire.AppendFrame(nil, wire.FrameAMQP, 1, &wire.Begin{RemoteChannel: new(uint16)}, nil), "amqp:not-allowed"},
		"no such session":     {wire.AppendFrame(nil, wire.FrameAMQP, 1, &wire.Detach{}, nil), "amqp:not-allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, s, 64<<10, 100)
			p.write(c.frames)
			p.closed(c.condition)
		})
	}
}

func TestClientClose(t *testing.T) {
	s := start(t, nil, nil)
	p := open(t, s, 64<<10, 100)
	p.send(0, &wire.Close{})
	if c := expect[*wire.Close](p); c.Error != nil {
		t.Error(c.Error)
	}
	p.ended()
	for s.Connections() > 0 {
		runtime.Gosched()
	}
}
