package sbemulator

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

const (
	maxFrame       = 64 << 10         // bytes of a frame, both ways; what Service Bus offers
	maxSASLFrame   = 4 << 10          // bytes
	channelMax     = 4999             // Service Bus's limit of sessions a connection
	handshakeLimit = 10 * time.Second // from connecting to open
	writeLimit     = 30 * time.Second // of one write
	lingerLimit    = time.Second      // for the last words of a connection
)

// errClosed is the end of a connection by the exchange of close.
var errClosed = errors.New("closed by the client")

// phase is how far our side of the connection has come (transport 2.4.6).
type phase uint8

const (
	started phase = iota // SASL, or nothing yet
	greeted              // the protocol header of AMQP is sent
	opened               // open is sent
)

// connection is one client. A reader and a writer goroutine serve it; both end
// when the client or the server closes.
type connection struct {
	s     *Server
	nc    net.Conn
	out   outbox
	gone  chan struct{}      // closed when the writer has ended
	beats chan time.Duration // how often the client wants a heartbeat
	full  atomic.Bool        // deliveries wait for room in out

	// Guarded by Server.mu:
	phase     phase
	closed    bool // torn down
	trusted   bool // by SASL PLAIN; needs no claims
	peerFrame uint32
	sessions  map[uint16]*session
	claims    map[string]bool // paths
}

func newConnection(s *Server, nc net.Conn) *connection {
	return &connection{
		s: s, nc: nc, out: newOutbox(),
		gone:     make(chan struct{}),
		beats:    make(chan time.Duration, 1),
		sessions: map[uint16]*session{},
		claims:   map[string]bool{},
	}
}

// read is the reader goroutine.
func (c *connection) read() {
	defer c.s.wg.Done()
	_ = c.nc.SetReadDeadline(time.Now().Add(handshakeLimit))
	r := bufio.NewReaderSize(c.nc, 32<<10)
	err := c.handshake(r)
	for err == nil {
		err = c.next(r)
	}
	c.s.mu.Lock()
	c.end(err)
	delete(c.s.connections, c)
	c.s.mu.Unlock()
}

// write is the writer goroutine. It closes the socket.
func (c *connection) write() {
	defer c.s.wg.Done()
	defer close(c.gone)
	defer func() { _ = c.nc.Close() }()
	var beat *time.Ticker
	var tick <-chan time.Time
	for {
		select {
		case <-c.out.wake:
		case d := <-c.beats:
			beat = time.NewTicker(d)
			defer beat.Stop()
			tick = beat.C
		case <-tick:
			c.out.add(func(b []byte) []byte { return wire.AppendFrame(b, wire.FrameAMQP, 0, nil, nil) })
		}
		b, last := c.out.take()
		if len(b) > 0 {
			limit := writeLimit
			if last {
				limit = lingerLimit
			}
			_ = c.nc.SetWriteDeadline(time.Now().Add(limit))
			if _, err := c.nc.Write(b); err != nil {
				return // the reader notices that the socket is closed
			}
		}
		if last {
			return
		}
		if c.full.CompareAndSwap(true, false) {
			c.s.mu.Lock()
			c.resume()
			c.s.mu.Unlock()
		}
	}
}

// send queues a frame.
func (c *connection) send(channel uint16, p wire.Performative, payload []byte) {
	c.out.add(func(b []byte) []byte { return wire.AppendFrame(b, wire.FrameAMQP, channel, p, payload) })
}

// next reads one frame and does what it asks for.
func (c *connection) next(r io.Reader) error {
	f, err := wire.ReadFrame(r, maxFrame)
	if err != nil {
		return err
	}
	if len(f.Body) == 0 {
		return nil // a heartbeat
	}
	if f.Type != wire.FrameAMQP {
		return fmt.Errorf("%w: a SASL frame after SASL", wire.ErrFrame)
	}
	p, payload, err := wire.ParsePerformative(f.Type, f.Body)
	if err != nil {
		return err
	}
	for c.out.size() > highWater {
		select {
		case <-c.out.room:
		case <-c.gone:
			return io.EOF
		}
	}
	return c.apply(f.Channel, p, payload)
}

// apply does what a frame asks for, together with the fault that is due for it.
func (c *connection) apply(channel uint16, p wire.Performative, payload []byte) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.closed {
		return io.EOF
	}
	f := c.faultFor(channel, p)
	if f != nil && f.Delay > 0 {
		c.s.mu.Unlock()
		c.pause(f.Delay)
		c.s.mu.Lock()
		if c.closed {
			return io.EOF
		}
	}
	switch {
	case f == nil:
	case f.Action == Drop:
		c.abort()
		return io.EOF
	case f.Action == DropAfter:
		c.out.mute()
		defer c.abort()
	}
	c.s.clock.run()
	return c.handle(channel, p, payload, f)
}

// pause waits, unless the connection or the server ends first.
func (c *connection) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.gone:
	case <-c.s.done:
	}
}

func (c *connection) handle(channel uint16, p wire.Performative, payload []byte, f *Fault) error {
	switch p := p.(type) {
	case *wire.Open:
		return &wire.Error{Condition: condNotAllowed, Description: "open a second time"}
	case *wire.Close:
		c.send(0, &wire.Close{}, nil)
		return errClosed
	case *wire.Begin:
		return c.begin(channel, p)
	}
	ss := c.sessions[channel]
	if _, end := p.(*wire.End); end && ss == nil {
		// go-amqp ends a session whose begin it never wrote, because a context
		// ended first. No caller waits for an answer, and others use the connection.
		return nil
	}
	if ss == nil {
		return &wire.Error{Condition: condNotAllowed, Description: fmt.Sprintf("channel %d has no session", channel)}
	}
	if p, ok := p.(*wire.End); ok {
		ss.remoteEnd(p)
		return nil
	}
	if ss.ended {
		return nil // in flight when the session ended here
	}
	var e *wire.Error
	switch p := p.(type) {
	case *wire.Attach:
		e = ss.attach(p, f)
	case *wire.Flow:
		e = ss.flow(p)
	case *wire.Transfer:
		e = ss.transfer(p, payload, f)
	case *wire.Disposition:
		ss.disposition(p, f)
	case *wire.Detach:
		e = ss.remoteDetach(p)
	}
	if e != nil {
		ss.fail(e)
	}
	return nil
}

// begin starts a session. Its channel has the same number both ways.
func (c *connection) begin(channel uint16, p *wire.Begin) error {
	if p.RemoteChannel != nil || channel > channelMax || c.sessions[channel] != nil {
		return &wire.Error{Condition: condNotAllowed, Description: fmt.Sprintf("begin on channel %d", channel)}
	}
	ss := &session{
		c: c, channel: channel,
		nextIncoming: p.NextOutgoingID,
		window:       incomingWindow,
		remoteWindow: p.IncomingWindow,
		links:        map[uint32]*link{},
		unsettled:    map[uint32]*delivery{},
	}
	c.sessions[channel] = ss
	c.send(channel, &wire.Begin{
		RemoteChannel: &channel, IncomingWindow: incomingWindow, OutgoingWindow: incomingWindow, HandleMax: handleMax,
	}, nil)
	return nil
}

// resume goes on with deliveries that waited for room.
func (c *connection) resume() {
	if c.closed {
		return
	}
	for _, ss := range c.sessions {
		ss.resume()
	}
}

// end closes the connection. The client is told of an error that it made.
func (c *connection) end(err error) {
	if c.closed {
		c.out.finish()
		return
	}
	var told *wire.Error
	switch {
	case errors.As(err, &told):
	case errors.Is(err, wire.ErrDecode):
		told = &wire.Error{Condition: condDecode, Description: err.Error()}
	case errors.Is(err, wire.ErrFrame):
		told = &wire.Error{Condition: condFraming, Description: err.Error()}
	}
	if told != nil {
		c.sayClose(told)
	}
	c.teardown(told == nil && !errors.Is(err, errClosed))
	c.out.finish()
}

// sayClose sends close with an error. Close follows open, so one that ends before
// the exchange of open opens first (transport 2.4.1). Before the protocol header of
// AMQP no frame of it can be sent.
func (c *connection) sayClose(e *wire.Error) {
	if c.phase == greeted {
		c.sayOpen()
	}
	if c.phase == opened {
		c.send(0, &wire.Close{Error: e}, nil)
	}
}

// sayOpen sends open.
func (c *connection) sayOpen() {
	c.send(0, &wire.Open{
		ContainerID: "sbemulator", MaxFrameSize: maxFrame, ChannelMax: channelMax,
		Properties: wire.Map{{Key: wire.Symbol("product"), Value: "queue-runtime Service Bus emulator"}},
	}, nil)
	c.phase = opened
}

// shutdown is the server's own end of the connection.
func (c *connection) shutdown() {
	if c.closed {
		return
	}
	c.teardown(closedInOrder)
	c.sayClose(&wire.Error{Condition: condForced, Description: "The emulator is closing."})
	c.out.finish()
}

// abort cuts the connection without a word, as a broken network would.
func (c *connection) abort() {
	if c.closed {
		return
	}
	c.teardown(cutOff)
	c.out.mute()
	c.out.finish()
	if tcp, ok := c.nc.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // what is on its way is lost
	}
	_ = c.nc.Close()
}

// How a connection, session or link ended.
const (
	closedInOrder = false
	cutOff        = true
)

// teardown releases all that the connection holds. lost says that it was cut,
// not closed.
func (c *connection) teardown(lost bool) {
	c.closed = true
	for _, ss := range c.sessions {
		ss.teardown(lost)
	}
	clear(c.sessions)
}
