package sbemulator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// QueueOptions are the settings of one queue. Service Bus names them alike.
type QueueOptions struct {
	// RequiresSession makes every message need a session ID, and every receiver
	// a session. The dead letters are received without sessions in any case.
	RequiresSession bool

	// LockDuration is how long a message or session is locked, up to 5 minutes.
	// 0 means 1 minute, as in Service Bus.
	LockDuration time.Duration

	// MaxDeliveryCount is after how many deliveries that did not succeed a
	// message is dead-lettered. 0 means 10.
	MaxDeliveryCount int

	// DefaultTTL is how long a message may live from being enqueued. A message's
	// own is cut to it. 0 means for ever.
	DefaultTTL time.Duration

	// DeadLetterOnExpiry moves messages whose time is over to the dead letters;
	// otherwise they are removed.
	DeadLetterOnExpiry bool

	// DuplicateDetectionWindow is for how long a message ID is remembered: a
	// message with one that is remembered is accepted and dropped. 0 means that
	// none is.
	DuplicateDetectionWindow time.Duration

	// MaxMessageSize is the limit of one transfer in bytes, also of a batch.
	// 0 means 256 KiB, Service Bus's standard tier. At most 100 MiB.
	MaxMessageSize int

	// MaxBytes is how much all messages may take, dead letters included. 0 means
	// 1 GiB. A message beyond it is refused.
	MaxBytes int64
}

const (
	defaultLock        = time.Minute
	maxLock            = 5 * time.Minute
	defaultDeliveries  = 10
	defaultMessageSize = 256 << 10
	maxMessageSize     = 100 << 20
	defaultBytes       = 1 << 30

	maxQueues = 10_000 // that clients can have created

	maxName = 260 // characters of a queue's path
	maxID   = 128 // characters of a message's or session's ID
)

func (o *QueueOptions) withDefaults() (QueueOptions, error) {
	var q QueueOptions
	if o != nil {
		q = *o
	}
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"LockDuration", q.LockDuration >= 0 && q.LockDuration <= maxLock},
		{"MaxDeliveryCount", q.MaxDeliveryCount >= 0},
		{"DefaultTTL", q.DefaultTTL >= 0},
		{"DuplicateDetectionWindow", q.DuplicateDetectionWindow >= 0},
		{"MaxMessageSize", q.MaxMessageSize >= 0 && q.MaxMessageSize <= maxMessageSize},
		{"MaxBytes", q.MaxBytes >= 0},
	} {
		if !f.ok {
			return q, fmt.Errorf("sbemulator: %s is out of range", f.name)
		}
	}
	q.LockDuration = orDefault(q.LockDuration, defaultLock)
	q.MaxDeliveryCount = orDefault(q.MaxDeliveryCount, defaultDeliveries)
	q.MaxMessageSize = orDefault(q.MaxMessageSize, defaultMessageSize)
	q.MaxBytes = orDefault(q.MaxBytes, defaultBytes)
	return q, nil
}

func orDefault[T comparable](v, or T) T {
	if v == *new(T) {
		return or
	}
	return v
}

// Errors about queues.
var (
	ErrQueueNotFound   = errors.New("sbemulator: no such queue")
	ErrQueueExists     = errors.New("sbemulator: queue exists")
	ErrMessageNotFound = errors.New("sbemulator: no such message")
	ErrInvalidName     = errors.New("sbemulator: a queue's name has 1 to 260 of [A-Za-z0-9._/~-] and neither starts nor ends with a slash")
)

const deadLetterPath = "$DeadLetterQueue"

// queue is a store of messages: a queue, or the dead letters of one. Server.mu
// guards it.
type queue struct {
	s      *Server
	path   string
	opts   QueueOptions
	dead   *queue // nil means this is a dead-letter queue
	source *queue // nil means this is none

	lastSeq int64     // of the queue; its dead letters have numbers of the same row
	bytes   int64     // of the queue and its dead letters
	order   []*record // ascending by number; may hold removed ones
	removed int       // how many of them
	bySeq   map[int64]*record
	ready   readyHeap
	locks   map[wire.UUID]*lock

	consumers []*link // links that receive without a session
	turn      int     // whose turn it is among them

	sessions map[string]*messageSession
	waiting  []*waiter

	seen      map[any]time.Time // message IDs, for duplicate detection
	seenOrder []seenID
}

type seenID struct {
	id any
	at time.Time
}

func newQueue(s *Server, name string, o QueueOptions) *queue {
	q := emptyQueue(s, name, o)
	q.dead = emptyQueue(s, name+"/"+deadLetterPath, o)
	q.dead.source = q
	return q
}

func emptyQueue(s *Server, path string, o QueueOptions) *queue {
	return &queue{
		s: s, path: path, opts: o,
		bySeq:    map[int64]*record{},
		locks:    map[wire.UUID]*lock{},
		sessions: map[string]*messageSession{},
		seen:     map[any]time.Time{},
	}
}

// main is the queue itself, of which q may be the dead letters.
func (q *queue) main() *queue {
	if q.source != nil {
		return q.source
	}
	return q
}

// sessional reports whether q is received by session.
func (q *queue) sessional() bool { return q.source == nil && q.opts.RequiresSession }

// CreateQueue makes a queue with its dead-letter queue. o may be nil. Names are
// not case-sensitive. Errors: ErrInvalidName, ErrQueueExists, options out of
// range.
func (s *Server) CreateQueue(name string, o *QueueOptions) error {
	opts, err := o.withDefaults()
	if err != nil {
		return err
	}
	if !validName(name) {
		return ErrInvalidName
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := strings.ToLower(name)
	if s.queues[key] != nil {
		return ErrQueueExists
	}
	s.queues[key] = newQueue(s, name, opts)
	return nil
}

// DeleteQueue removes a queue with all its messages and detaches its links.
// Error: ErrQueueNotFound.
func (s *Server) DeleteQueue(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := strings.ToLower(name)
	q := s.queues[key]
	if q == nil {
		return ErrQueueNotFound
	}
	delete(s.queues, key)
	s.detachLinks(q, s.notFound(q.path))
	for _, x := range []*queue{q, q.dead} {
		for _, r := range slices.Clone(x.order) { // remove may compact it
			if r.q == x {
				x.remove(r)
			}
		}
		for _, ms := range x.sessions {
			s.clock.stop(ms.timer)
		}
	}
	return nil
}

// Queues returns the names of all queues in order.
func (s *Server) Queues() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, q := range s.queues {
		names = append(names, q.path)
	}
	slices.Sort(names)
	return names
}

func validName(name string) bool {
	if len(name) == 0 || len(name) > maxName || strings.Trim(name, "/") != name {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("._/~-", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// address is where a link goes.
type address struct {
	cbs        bool
	management bool
	queue      string // as the client wrote it
	dead       bool
}

// parseAddress reads the address of a terminus or the audience of a claim: a
// path, or a URL with that path.
func parseAddress(s string) address {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		_, s, _ = strings.Cut(rest, "/")
	}
	s = strings.Trim(s, "/")
	if strings.EqualFold(s, "$cbs") {
		return address{cbs: true}
	}
	var a address
	s, a.management = cutPath(s, "$management")
	a.queue, a.dead = cutPath(s, deadLetterPath)
	return a
}

// path is the address of the queue or the dead letters.
func (a address) path() string {
	if a.dead {
		return a.queue + "/" + deadLetterPath
	}
	return a.queue
}

func cutPath(s, last string) (string, bool) {
	if n := len(s) - len(last) - 1; n >= 0 && s[n] == '/' && strings.EqualFold(s[n+1:], last) {
		return s[:n], true
	}
	return s, false
}

// find returns the queue of an address and creates it if the options say so;
// nil when there is none.
func (s *Server) find(a address) *queue {
	key := strings.ToLower(a.queue)
	q := s.queues[key]
	if q == nil && s.auto != nil && validName(a.queue) && len(s.queues) < maxQueues {
		q = newQueue(s, a.queue, *s.auto)
		s.queues[key] = q
	}
	if q != nil && a.dead {
		return q.dead
	}
	return q
}

// notFound is the error of an entity that does not exist. Clients match its text
// (the messaging exceptions of the service's documents).
func (s *Server) notFound(path string) *wire.Error {
	return &wire.Error{Condition: condNotFound, Description: fmt.Sprintf(
		"The messaging entity 'sb://%s/%.260s' could not be found.", s.ln.Addr(), path)}
}

// lookup is find for the functions of this package: a path, nothing created.
func (s *Server) lookup(path string) (*queue, error) {
	a := parseAddress(path)
	q := s.queues[strings.ToLower(a.queue)]
	if q == nil || a.management || a.cbs {
		return nil, ErrQueueNotFound
	}
	if a.dead {
		return q.dead, nil
	}
	return q, nil
}
