package sbqueue_test

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/faultproxy"
)

// relay passes AMQP frames between a driver and the emulator, and can change them,
// refuse connections and fall silent, as a network can.
type relay struct {
	listener net.Listener
	server   *namespace
	tap      func(connection int, toClient bool, frame []byte) []byte // nil: frames pass as they are

	mu          sync.Mutex // guards what follows
	refuse      bool
	delay       time.Duration // of each direction, of connections to come
	dials       int
	connections map[*relayed]struct{}
	running     sync.WaitGroup
}

// relayed is one connection and the relay's to the server.
type relayed struct {
	client, server net.Conn
	silence        sync.Once
	silent         chan struct{} // closed: nothing passes any more
}

// relayed returns a namespace that is reached over a relay with this tap, which may
// be nil. If the emulator listens in memory, so does the relay.
func (n *namespace) relayed(t testing.TB, tap func(int, bool, []byte) []byte) *relay {
	t.Helper()
	var l net.Listener = newMemoryListener()
	if n.memory == nil {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	r := &relay{listener: l, server: n, tap: tap, connections: make(map[*relayed]struct{})}
	r.running.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.cut()
		r.running.Wait()
	})
	return r
}

// broker is a broker over the relay, whose connections may be dead when it is closed.
func (r *relay) broker(t testing.TB, n *namespace, o *sbqueue.Options) *sbqueue.Broker {
	t.Helper()
	b := r.connect(t, n, o)
	t.Cleanup(func() { _ = b.Close(t.Context()) })
	return b
}

func (r *relay) connect(t testing.TB, n *namespace, o *sbqueue.Options) *sbqueue.Broker {
	t.Helper()
	if o == nil {
		o = &sbqueue.Options{Default: n.settings}
	}
	connect := sbqueue.FromConnectionString
	if memory, ok := r.listener.(*memoryListener); ok {
		connect = memory.connect
	}
	b, err := connect(strings.Replace(n.ConnectionString(), n.Addr().String(), r.listener.Addr().String(), 1), o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// buffered is a broker over a relay that has room for what the emulator does not read: in memory
// a write otherwise lasts until it is read.
func (n *namespace) buffered(t testing.TB) *sbqueue.Broker {
	t.Helper()
	r := n.relayed(t, nil)
	r.setDelay(time.Millisecond)
	b := r.connect(t, n, nil)
	closeAtEnd(t, b)
	return b
}

// openBuffered opens the queue of a buffered broker.
func (n *namespace) openBuffered(t testing.TB) driver.Queue {
	t.Helper()
	q, err := n.buffered(t).Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// setRefuse makes new connections be closed at once.
func (r *relay) setRefuse(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = on
}

// setDelay has new connections pass frames so much later, in each direction.
func (r *relay) setDelay(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

// takeDials returns how many connections were made since the last call.
func (r *relay) takeDials() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.dials
	r.dials = 0
	return n
}

// silence lets nothing pass over the connections that there are. They stay open.
func (r *relay) silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.connections {
		p.silence.Do(func() { close(p.silent) })
	}
}

// cut closes the connections that there are.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.connections {
		_ = p.client.Close()
		_ = p.server.Close()
	}
}

func (r *relay) accept() {
	for n := 1; ; n++ {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.dials++
		refuse := r.refuse
		r.mu.Unlock()
		if refuse {
			_ = client.Close()
			continue
		}
		server, err := r.server.dial()
		if err != nil {
			_ = client.Close()
			continue
		}
		p := &relayed{client: client, server: server, silent: make(chan struct{})}
		r.mu.Lock()
		r.connections[p] = struct{}{}
		delay := r.delay
		r.mu.Unlock()
		r.running.Go(func() { r.pass(p, n, false, delay) })
		r.running.Go(func() { r.pass(p, n, true, delay) })
	}
}

// late writes what it is given after d. It has room for what is on the way.
type late struct {
	io.Writer
	d        time.Duration
	underway chan lateFrame
}

type lateFrame struct {
	due   time.Time
	frame []byte
}

func (l *late) Write(frame []byte) (int, error) {
	l.underway <- lateFrame{time.Now().Add(l.d), frame}
	return len(frame), nil
}

// run writes until underway is closed.
func (l *late) run() {
	for f := range l.underway {
		timer := time.NewTimer(time.Until(f.due))
		<-timer.C
		_, _ = l.Writer.Write(f.frame) // if the side has ended, its reader says so
	}
}

// pass passes frames one way until a side ends, or nothing once p is silent.
func (r *relay) pass(p *relayed, n int, toClient bool, delay time.Duration) {
	from, side := p.client, p.server
	if toClient {
		from, side = side, from
	}
	to := io.Writer(side)
	if delay > 0 {
		l := &late{Writer: side, d: delay, underway: make(chan lateFrame, 1<<16)}
		r.running.Go(l.run)
		defer close(l.underway)
		to = l
	}
	for {
		frame, err := readFrame(from)
		select {
		case <-p.silent:
			if err != nil {
				return // cut does the rest
			}
			continue
		default:
		}
		if err == nil && r.tap != nil {
			frame = r.tap(n, toClient, frame)
		}
		if err == nil {
			_, err = to.Write(frame)
		}
		if err != nil {
			_ = p.client.Close()
			_ = p.server.Close()
			r.mu.Lock()
			delete(r.connections, p)
			r.mu.Unlock()
			return
		}
	}
}

// readFrame reads a frame or a protocol header (AMQP 1.0, Part 2, Sections 2.2 and
// 2.3.1).
func readFrame(r io.Reader) ([]byte, error) {
	head := make([]byte, 8)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:4]) == "AMQP" {
		return head, err
	}
	frame := make([]byte, max(8, binary.BigEndian.Uint32(head)))
	copy(frame, head)
	_, err := io.ReadFull(r, frame[8:])
	return frame, err
}

// isTransfer reports whether a frame is, or begins, a transfer.
func isTransfer(frame []byte) bool {
	if len(frame) < 12 || string(frame[:4]) == "AMQP" {
		return false
	}
	at := int(frame[4]) * 4
	return len(frame) >= at+3 && frame[at] == 0 && frame[at+1] == 0x53 && frame[at+2] == 0x14
}

// shiftLocks moves the ends of locks that the server tells by d, as a server does
// whose clock differs from the client's.
func shiftLocks(d time.Duration) func(int, bool, []byte) []byte {
	return func(_ int, toClient bool, frame []byte) []byte {
		if !toClient {
			return frame
		}
		faultproxy.ServiceBusClock(frame, d)
		return frame
	}
}
