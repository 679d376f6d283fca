package sbemulator

import (
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Options are the settings of a [Server]. The zero value is ready to use.
type Options struct {
	// ListenAddr is the TCP address to listen on. Empty means 127.0.0.1 and a
	// free port. An address that is not of the loopback network needs
	// AllowRemote: the emulator speaks without TLS and checks little.
	ListenAddr  string
	AllowRemote bool

	// Listener accepts the connections if it is not nil, in place of ListenAddr: one in memory
	// serves a test in a bubble of testing/synctest. Close closes it.
	Listener net.Listener

	// AutoCreate, if it is not nil, has a queue made with these options when
	// a client addresses one that does not exist. nil means that it is not
	// found.
	AutoCreate *QueueOptions

	// Key is the shared access key. If it is set, claims must be signed with it and
	// every link needs a claim, as with the service. Empty means that links need no
	// claim and any claim is accepted. Under GODEBUG=fips140=only it needs at least
	// 14 bytes, because HMAC refuses shorter keys there.
	Key string

	// FrozenClock makes the emulator's clock stand still but for
	// [Server.Advance].
	FrozenClock bool

	// IdleLinkTimeout is after how long without traffic a link is detached, by
	// the emulator's clock. 0 means never; the service does so after 10 minutes.
	IdleLinkTimeout time.Duration

	// KeepSessionLocks keeps a session locked when the connection of its holder
	// is lost, until the lock runs out: the service need not notice at once.
	KeepSessionLocks bool
}

const (
	keyName        = "emulator"
	anyKey         = "the-key-of-an-emulator" // its clients sign with it, also under fips140=only
	leastKey       = 14                       // bytes; 112 bits (NIST SP 800-131A, Section 10)
	maxConnections = 1024
	maxLinks       = 20_000
	// maxPending is how many bytes may wait in a server: of incomplete messages, of
	// answers that are not read, and of messages for which clients have no window.
	maxPending = 512 << 20
)

// Server is an emulator that listens. Its methods are safe for concurrent use.
type Server struct {
	opts Options
	auto *QueueOptions
	ln   net.Listener
	wg   sync.WaitGroup
	done chan struct{} // closed by Close
	kick chan struct{} // to keepTime

	mu           sync.Mutex // guards all below, and the state of queues, connections, sessions and links
	clock        clock      // of the queues
	system       clock      // of the protocol: the system's time
	queues       map[string]*queue
	connections  map[*connection]struct{}
	faults       []*Injection
	links        int // of all connections
	pending      int // bytes that wait
	pendingLimit int // see maxPending
	closed       bool
}

// Start listens and serves until [Server.Close]. o may be nil. It owns every
// goroutine that it starts: when Close returns, none is left.
func Start(o *Options) (*Server, error) {
	s := &Server{
		done:         make(chan struct{}),
		kick:         make(chan struct{}, 1),
		queues:       map[string]*queue{},
		connections:  map[*connection]struct{}{},
		pendingLimit: maxPending,
	}
	if o != nil {
		s.opts = *o
	}
	if s.opts.IdleLinkTimeout < 0 {
		return nil, errors.New("sbemulator: IdleLinkTimeout is negative")
	}
	if fips140.Enforced() && s.opts.Key != "" && len(s.opts.Key) < leastKey {
		return nil, fmt.Errorf("sbemulator: Key has less than %d bytes, which fips140=only does not sign with", leastKey)
	}
	if s.opts.AutoCreate != nil {
		auto, err := s.opts.AutoCreate.withDefaults()
		if err != nil {
			return nil, err
		}
		s.auto = &auto
	}
	if s.opts.FrozenClock {
		s.clock.frozen = time.Now()
	}
	s.clock.sooner, s.system.sooner = s.wake, s.wake
	if s.ln = s.opts.Listener; s.ln == nil {
		addr := orDefault(s.opts.ListenAddr, "127.0.0.1:0")
		if err := checkLoopback(addr, s.opts.AllowRemote); err != nil {
			return nil, err
		}
		ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("sbemulator: %w", err)
		}
		s.ln = ln
	}
	s.wg.Add(2)
	go s.accept()
	go s.keepTime()
	return s, nil
}

func checkLoopback(addr string, remote bool) error {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return fmt.Errorf("sbemulator: ListenAddr: %w", err)
	}
	if !remote && !tcp.IP.IsLoopback() {
		return errors.New("sbemulator: ListenAddr is not a loopback address; set AllowRemote if it is meant to be open to others")
	}
	return nil
}

// Run serves until ctx is done and closes. When it listens it calls ready, for
// queues to be made and the connection string to be told. ready may be nil; its
// error ends Run.
func Run(ctx context.Context, o *Options, ready func(*Server) error) error {
	s, err := Start(o)
	if err != nil {
		return err
	}
	if ready != nil {
		if err := ready(s); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	<-ctx.Done()
	return s.Close()
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// ConnectionString is what a client of Service Bus connects with. It holds the
// key of the options.
func (s *Server) ConnectionString() string {
	host, port, _ := net.SplitHostPort(s.ln.Addr().String())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "Endpoint=sb://" + net.JoinHostPort(host, port) + ";SharedAccessKeyName=" + keyName +
		";SharedAccessKey=" + orDefault(s.opts.Key, anyKey) + ";UseDevelopmentEmulator=true"
}

// Connections is how many clients are connected.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.connections)
}

// Close ends all connections, telling the clients, and waits for every
// goroutine. All messages are gone. A second Close does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.wg.Wait()
		return nil
	}
	s.closed = true
	close(s.done)
	var open []*connection
	for c := range s.connections {
		c.shutdown()
		open = append(open, c)
	}
	s.mu.Unlock()
	err := s.ln.Close()
	linger := time.NewTimer(lingerLimit)
	defer linger.Stop()
	for _, c := range open {
		select {
		case <-c.gone:
		case <-linger.C: // a client that does not read
			linger.Reset(0)
			_ = c.nc.Close()
		}
	}
	s.wg.Wait()
	return err
}

// accept is the listener's goroutine.
func (s *Server) accept() {
	defer s.wg.Done()
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			select {
			case <-s.done:
				return
			case <-time.After(10 * time.Millisecond): // for example out of file descriptors
				continue
			}
		}
		s.mu.Lock()
		if s.closed || len(s.connections) >= maxConnections {
			s.mu.Unlock()
			_ = nc.Close()
			continue
		}
		c := newConnection(s, nc)
		s.connections[c] = struct{}{}
		s.wg.Add(2)
		s.mu.Unlock()
		go c.read()
		go c.write()
	}
}
