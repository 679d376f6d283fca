package sbemulator_test

import (
	"net"
	"testing"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

func TestProtocolHeaders(t *testing.T) {
	s := start(t, nil, nil)
	for name, c := range map[string]string{"tls": "AMQP\x02\x01\x00\x00", "http": "GET / HTTP/1.1\r\n", "amqp 0-9-1": "AMQP\x00\x00\x09\x01"} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, s)
			p.write([]byte(c))
			p.header(wire.ProtocolSASL) // what is spoken here (transport 2.2)
			p.ended()
		})
	}
	t.Run("cut short", func(t *testing.T) {
		p := dial(t, s)
		p.write([]byte("AM"))
		if err := p.nc.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		p.header(wire.ProtocolSASL)
		p.ended()
	})
}

// TestOpenErrors breaks the protocol in the first frame: the error comes in a close,
// which follows an open.
func TestOpenErrors(t *testing.T) {
	s := start(t, nil, nil)
	frame := func(p wire.Performative) []byte { return wire.AppendFrame(nil, wire.FrameAMQP, 0, p, nil) }
	for name, c := range map[string]struct {
		frame     []byte
		condition wire.Symbol
	}{
		"begin":       {frame(&wire.Begin{}), "amqp:connection:framing-error"},
		"tiny frames": {frame(&wire.Open{ContainerID: "x", MaxFrameSize: 511}), "amqp:connection:framing-error"},
		"sasl":        {wire.AppendFrame(nil, wire.FrameSASL, 0, &wire.Outcome{}, nil), "amqp:connection:framing-error"},
		"size":        {[]byte{255, 255, 255, 255, 2, 0, 0, 0}, "amqp:connection:framing-error"},
		"garbage":     {[]byte{0, 0, 0, 12, 2, 0, 0, 0, 1, 2, 3, 4}, "amqp:decode-error"},
	} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, s)
			p.write(wire.AppendProtocol(nil, wire.ProtocolAMQP))
			p.header(wire.ProtocolAMQP)
			p.write(c.frame)
			expect[*wire.Open](p)
			p.closed(c.condition)
		})
	}
}

// TestHeartbeat: a client that asks for frames gets empty ones.
func TestHeartbeat(t *testing.T) {
	s := start(t, nil, nil)
	p := dial(t, s)
	p.write(wire.AppendProtocol(nil, wire.ProtocolAMQP))
	p.header(wire.ProtocolAMQP)
	p.send(0, &wire.Open{ContainerID: "peer", MaxFrameSize: 512, IdleTimeout: 20})
	expect[*wire.Open](p)
	p.write([]byte{0, 0, 0, 8, 2, 0, 0, 0}) // one of its own
	for range 2 {
		if f, err := wire.ReadFrame(p.r, 512); err != nil || len(f.Body) != 0 {
			t.Fatalf("% x, %v", f.Body, err)
		}
	}
}

// TestCloseBeforeOpen: a server that closes tells it to a client that has not opened.
func TestCloseBeforeOpen(t *testing.T) {
	s := start(t, nil, nil)
	p := dial(t, s)
	p.write(wire.AppendProtocol(nil, wire.ProtocolAMQP))
	p.header(wire.ProtocolAMQP)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	expect[*wire.Open](p)
	p.closed("amqp:connection:forced")
}
