package sbemulator

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// mechanisms are the SASL mechanisms on offer. With all but PLAIN the client
// proves itself by claims, at $cbs.
var mechanisms = []wire.Symbol{"MSSBCBS", "PLAIN", "ANONYMOUS"}

// handshake goes from the first byte to the exchange of open.
func (c *connection) handshake(r io.Reader) error {
	p, err := wire.ReadProtocol(r)
	if err != nil {
		c.refuse()
		return err
	}
	if p == wire.ProtocolSASL {
		if err := c.sasl(r); err != nil {
			return err
		}
		if p, err = wire.ReadProtocol(r); err != nil {
			c.refuse()
			return err
		}
	}
	if p != wire.ProtocolAMQP {
		c.refuse()
		return fmt.Errorf("%w: protocol %d", wire.ErrFrame, p)
	}
	c.greet()
	return c.open(r)
}

// greet sends the protocol header of AMQP.
func (c *connection) greet() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.closed {
		return
	}
	c.out.add(func(b []byte) []byte { return wire.AppendProtocol(b, wire.ProtocolAMQP) })
	c.phase = greeted
}

// refuse answers a protocol that is not spoken here by one that is (transport
// 2.2).
func (c *connection) refuse() {
	c.out.add(func(b []byte) []byte { return wire.AppendProtocol(b, wire.ProtocolSASL) })
}

func (c *connection) sasl(r io.Reader) error {
	send := func(p wire.Performative) {
		c.out.add(func(b []byte) []byte { return wire.AppendFrame(b, wire.FrameSASL, 0, p, nil) })
	}
	c.refuse() // the same header, as an answer to itself
	send(&wire.Mechanisms{Names: mechanisms})
	f, err := wire.ReadFrame(r, maxSASLFrame)
	if err != nil {
		return err
	}
	p, _, err := wire.ParsePerformative(f.Type, f.Body)
	if err != nil {
		return err
	}
	choice, ok := p.(*wire.Init)
	if !ok {
		return fmt.Errorf("%w: %T for sasl-init", wire.ErrFrame, p)
	}
	switch choice.Mechanism {
	case "ANONYMOUS", "MSSBCBS":
	case "PLAIN":
		if !c.plain(choice.InitialResponse) {
			send(&wire.Outcome{Code: wire.SASLAuth})
			return io.EOF
		}
	default:
		send(&wire.Outcome{Code: wire.SASLAuth})
		return io.EOF
	}
	send(&wire.Outcome{Code: wire.SASLOK})
	return nil
}

// plain checks a response of PLAIN: authorization, user and password, with NUL
// between them (RFC 4616, Section 2). The password is the shared access key.
func (c *connection) plain(response []byte) bool {
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return false
	}
	key := c.s.opts.Key
	if key != "" && subtle.ConstantTimeCompare(parts[2], []byte(key)) != 1 {
		return false
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.trusted = true
	return true
}

// open exchanges open (transport 2.4.1).
func (c *connection) open(r io.Reader) error {
	f, err := wire.ReadFrame(r, maxFrame)
	if err != nil {
		return err
	}
	p, _, err := wire.ParsePerformative(f.Type, f.Body)
	if err != nil {
		return err
	}
	o, ok := p.(*wire.Open)
	if !ok {
		return fmt.Errorf("%w: %T for open", wire.ErrFrame, p)
	}
	if o.MaxFrameSize < wire.MinMaxFrame {
		return fmt.Errorf("%w: max-frame-size %d", wire.ErrFrame, o.MaxFrameSize)
	}
	if o.IdleTimeout > 0 {
		c.beats <- max(time.Duration(o.IdleTimeout)*time.Millisecond/2, 10*time.Millisecond)
	}
	_ = c.nc.SetReadDeadline(time.Time{})
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.closed {
		return io.EOF
	}
	c.sayOpen()
	c.peerFrame = min(o.MaxFrameSize, maxFrame)
	if f := c.s.fault(OnConnect, ""); f != nil {
		switch f.Action {
		case Refuse:
			return f.err()
		default:
			c.abort()
			return io.EOF
		}
	}
	return nil
}
