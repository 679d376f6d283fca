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

func TestOpenErrors(t *testing.T) {
	s := start(t, nil, nil)
	for name, perf := range map[string]wire.Performative{"begin": &wire.Begin{}, "tiny frames": &wire.Open{ContainerID: "x", MaxFrameSize: 511}} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, s)
			p.write(wire.AppendProtocol(nil, wire.ProtocolAMQP))
			p.header(wire.ProtocolAMQP)
			p.send(0, perf)
			p.ended()
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
