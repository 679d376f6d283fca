package sbemulator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// Operation is something that a client or the emulator does and that a [Fault]
// can befall.
type Operation uint8

// The operations.
const (
	OnConnect Operation = 1 + iota // a connection was opened
	OnClaim                        // a token is put to $cbs
	OnAttach                       // a link to a queue or its $management is attached
	OnSend                         // a message or batch has arrived complete
	OnDeliver                      // a message is about to go to a receiver
	OnSettle                       // a receiver settles deliveries over its link
	OnManage                       // a request to $management has arrived
)

// Action is what a [Fault] does.
type Action uint8

// The actions.
const (
	// Pass does nothing but wait for the Delay.
	Pass Action = iota
	// Refuse answers with the Condition, or with the Status if there is one,
	// and changes nothing.
	Refuse
	// Drop cuts the connection before the operation takes effect. A message
	// that was to be delivered is locked, or gone, all the same: it was on its
	// way.
	Drop
	// DropAfter lets the operation take effect and cuts the connection instead
	// of answering: the client cannot know.
	DropAfter
	// Detach ends the link with the Condition before the operation takes effect.
	Detach
	// Ignore lets the operation wait for an answer for ever, and nothing else: the
	// service does so with a receiver that asks for a session, at times.
	Ignore
)

// Fault is what is to go wrong. Which actions an operation can have:
//
//	OnConnect   Refuse, Drop
//	OnClaim     Pass, Refuse, Drop, DropAfter
//	OnAttach    Pass, Refuse, Drop, DropAfter, Ignore
//	OnSend      Pass, Refuse, Drop, DropAfter, Detach
//	OnDeliver   Drop, Detach
//	OnSettle    Pass, Refuse, Drop, DropAfter, Detach
//	OnManage    Pass, Refuse, Drop, DropAfter
type Fault struct {
	On     Operation
	Action Action

	// Queue is the path of the queue that it concerns, with /$DeadLetterQueue
	// for dead letters. Empty means all.
	Queue string

	// Skip is how many matching operations go well first.
	Skip int

	// Times is how many operations it befalls. 0 means all until it is removed.
	Times int

	// Delay is how long the connection stands still before the operation, by
	// the system's clock. 0 means not at all. Everything that the same client
	// has sent behind it waits too. Not for OnConnect and OnDeliver.
	Delay time.Duration

	// Condition and Description are the error of Refuse and Detach. An empty
	// Condition means amqp:internal-error, which clients take for transient.
	Condition   string
	Description string

	// Status is the status code with which OnClaim and OnManage are refused.
	// 100 to 599; 0 means 500.
	Status int
}

// Injection is a [Fault] in place. Its methods are safe for concurrent use.
type Injection struct {
	s     *Server
	fault Fault
	queue string // lower case
	seen  int
	hits  int
}

// Remove takes the fault out. A second Remove does nothing.
func (i *Injection) Remove() {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	i.s.faults = slices.DeleteFunc(i.s.faults, func(x *Injection) bool { return x == i })
}

// Hits is how many operations the fault has befallen.
func (i *Injection) Hits() int {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	return i.hits
}

var actions = map[Operation][]Action{
	OnConnect: {Refuse, Drop},
	OnClaim:   {Pass, Refuse, Drop, DropAfter},
	OnAttach:  {Pass, Refuse, Drop, DropAfter, Ignore},
	OnSend:    {Pass, Refuse, Drop, DropAfter, Detach},
	OnDeliver: {Drop, Detach},
	OnSettle:  {Pass, Refuse, Drop, DropAfter, Detach},
	OnManage:  {Pass, Refuse, Drop, DropAfter},
}

// Inject puts a fault in place. Of several that match an operation, the one
// that was injected first befalls it. The error says what of f makes no sense.
func (s *Server) Inject(f Fault) (*Injection, error) {
	switch {
	case !slices.Contains(actions[f.On], f.Action):
		return nil, fmt.Errorf("sbemulator: operation %d cannot have action %d", f.On, f.Action)
	case f.Skip < 0, f.Times < 0, f.Delay < 0:
		return nil, errors.New("sbemulator: Skip, Times and Delay of a fault must not be negative")
	case f.Status != 0 && (f.Status < 100 || f.Status > 599):
		return nil, fmt.Errorf("sbemulator: status %d is out of range", f.Status)
	case f.Delay > 0 && (f.On == OnConnect || f.On == OnDeliver):
		return nil, fmt.Errorf("sbemulator: operation %d cannot be delayed", f.On)
	}
	if f.Condition == "" {
		f.Condition = string(condInternal)
	}
	f.Status = orDefault(f.Status, 500)
	i := &Injection{s: s, fault: f, queue: strings.ToLower(strings.Trim(f.Queue, "/"))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, i)
	return i, nil
}

// fault returns the fault that befalls an operation now, nil for none.
func (s *Server) fault(on Operation, queue string) *Fault {
	for _, i := range s.faults {
		if i.fault.On != on || (i.queue != "" && !strings.EqualFold(i.queue, queue)) {
			continue
		}
		if i.fault.Times > 0 && i.hits >= i.fault.Times {
			continue
		}
		if i.seen++; i.seen <= i.fault.Skip {
			continue
		}
		i.hits++
		return &i.fault
	}
	return nil
}

func (f *Fault) err() *wire.Error {
	return &wire.Error{Condition: wire.Symbol(f.Condition), Description: f.Description}
}

// refuses reports whether f, which may be nil, refuses the operation.
func (f *Fault) refuses() bool { return f != nil && f.Action == Refuse }

// detaches reports whether f, which may be nil, detaches the link.
func (f *Fault) detaches() bool { return f != nil && f.Action == Detach }

// ignores reports whether f, which may be nil, leaves the operation unanswered.
func (f *Fault) ignores() bool { return f != nil && f.Action == Ignore }

// faultFor returns the fault that befalls the operation which a frame is about
// to complete.
func (c *connection) faultFor(channel uint16, p wire.Performative) *Fault {
	if len(c.s.faults) == 0 {
		return nil
	}
	ss := c.sessions[channel]
	if ss == nil || ss.ended {
		return nil
	}
	switch p := p.(type) {
	case *wire.Attach:
		if a := parseAddress(nodeAddress(p)); !a.cbs {
			return c.s.fault(OnAttach, a.path())
		}
	case *wire.Transfer:
		l := ss.links[p.Handle]
		if l == nil || l.gone || l.in == nil || p.More || p.Aborted {
			return nil
		}
		switch {
		case l.addr.cbs:
			return c.s.fault(OnClaim, "")
		case l.addr.management:
			return c.s.fault(OnManage, l.q.path)
		}
		return c.s.fault(OnSend, l.q.path)
	case *wire.Disposition:
		if d := ss.unsettled[p.First]; d != nil {
			return c.s.fault(OnSettle, d.link.q.path)
		}
	}
	return nil
}

// DropConnections cuts every connection at once, as a broken network would, and
// returns how many. What was on its way is lost in both directions. The locks
// of messages last; sessions are free at once, unless Options.KeepSessionLocks.
func (s *Server) DropConnections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for c := range s.connections {
		if !c.closed {
			c.abort()
			n++
		}
	}
	return n
}

// DetachLinks ends every link to the queue of that path, its dead letters and
// its $management with an error, and returns how many. An empty condition means
// amqp:link:detach-forced, as when Service Bus moves a queue.
func (s *Server) DetachLinks(path, condition, description string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.lookup(path)
	if err != nil {
		return 0, err
	}
	if condition == "" {
		condition = string(condDetachForced)
	}
	return s.detachLinks(q.main(), &wire.Error{Condition: wire.Symbol(condition), Description: description}), nil
}

func (s *Server) detachLinks(q *queue, e *wire.Error) int {
	var links []*link
	for c := range s.connections {
		for _, ss := range c.sessions {
			for _, l := range ss.links {
				if !l.gone && l.q != nil && l.q.main() == q {
					links = append(links, l)
				}
			}
		}
	}
	for _, l := range links {
		l.detach(e)
	}
	return len(links)
}

// ExpireLock ends the lock of a message as if its time were over: the delivery
// did not succeed. Errors: ErrQueueNotFound, ErrMessageNotFound even if the
// message is not locked, or is locked with its session.
func (s *Server) ExpireLock(path string, sequenceNumber int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.lookup(path)
	if err != nil {
		return err
	}
	r := q.bySeq[sequenceNumber]
	if r == nil || r.lock == nil || r.lock.session != nil {
		return ErrMessageNotFound
	}
	q.lockExpired(r.lock)
	return nil
}

// ErrSessionNotFound reports that no receiver holds a session of that name.
var ErrSessionNotFound = errors.New("sbemulator: no such session is held")

// ExpireSession ends the lock of a session as if its time were over: its
// deliveries did not succeed, its link is detached. Errors: ErrQueueNotFound,
// ErrSessionNotFound.
func (s *Server) ExpireSession(path, sessionID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.lookup(path)
	if err != nil {
		return err
	}
	ms := q.sessions[sessionID]
	if ms == nil || !ms.held {
		return ErrSessionNotFound
	}
	ms.expire()
	return nil
}
