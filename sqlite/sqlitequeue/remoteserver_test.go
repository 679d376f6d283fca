package sqlitequeue_test

import (
	"context"
	"encoding/gob"
	"errors"
	"io"
	"sync"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// remoteServer is the other end of remoteBroker.
type remoteServer struct {
	b   *sqlitequeue.Broker
	out *gob.Encoder

	mu         sync.Mutex // guards what follows, and out
	last       uint64
	objects    map[uint64]any // queues and sessions
	deliveries map[uint64]*driver.Delivery
	cancel     map[uint64]context.CancelFunc
}

func brokerRole(in io.Reader, out io.Writer, args []string) error {
	ctx := context.Background()
	// Durability is shown elsewhere; this must not wait for a busy disk.
	b, err := sqlitequeue.Open(ctx, args[0], &sqlitequeue.Options{MustExist: true, Synchronous: sqlitequeue.Normal})
	if err != nil {
		return err
	}
	s := &remoteServer{
		b:          b,
		out:        gob.NewEncoder(out),
		objects:    make(map[uint64]any),
		deliveries: make(map[uint64]*driver.Delivery),
		cancel:     make(map[uint64]context.CancelFunc),
	}
	var calls sync.WaitGroup
	for dec := gob.NewDecoder(in); ; {
		var c call
		if err := dec.Decode(&c); err != nil {
			calls.Wait()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, b.Close(ctx))
		}
		if c.Cancel {
			s.mu.Lock()
			if cancel := s.cancel[c.ID]; cancel != nil {
				cancel()
			}
			s.mu.Unlock()
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		s.mu.Lock()
		s.cancel[c.ID] = cancel
		s.mu.Unlock()
		calls.Go(func() {
			defer cancel()
			a := s.serve(ctx, c)
			a.ID = c.ID
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.cancel, c.ID)
			_ = s.out.Encode(a) // the parent is gone: so will this process be
		})
	}
}

// keep gives an object a number.
func (s *remoteServer) keep(o any) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.objects[s.last] = o
	return s.last
}

func (s *remoteServer) object(n uint64) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[n]
}

func (s *remoteServer) wire(list []*driver.Delivery) (out []delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range list {
		s.last++
		s.deliveries[s.last] = d
		plain := *d
		plain.Receipt = nil
		out = append(out, delivery{plain, s.last})
	}
	return out
}

func (s *remoteServer) delivery(n uint64) *driver.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deliveries[n]
}

func (s *remoteServer) serve(ctx context.Context, c call) (a answer) {
	switch c.Op {
	case "open":
		q, err := s.b.Open(ctx, c.Name, c.Options)
		return s.opened(q, err)
	case "closeAll":
		return answer{Err: toWire(s.b.Close(ctx))}
	}
	switch o := s.object(c.Object).(type) {
	case driver.Queue:
		return s.queue(ctx, o, c)
	case driver.Session:
		return s.session(ctx, o, c)
	}
	return answer{Err: toWire(errors.New("no such object"))}
}

func (s *remoteServer) opened(q driver.Queue, err error) answer {
	if err != nil {
		return answer{Err: toWire(err)}
	}
	return answer{Object: s.keep(q), Capabilities: q.Capabilities()}
}

func (s *remoteServer) queue(ctx context.Context, q driver.Queue, c call) (a answer) {
	switch c.Op {
	case "send":
		list := make([]*driver.Message, len(c.Messages))
		for i := range list {
			list[i] = &c.Messages[i]
		}
		for _, r := range q.Send(ctx, list) {
			a.BrokerIDs = append(a.BrokerIDs, r.BrokerID)
			a.Errs = append(a.Errs, toWire(r.Err))
		}
	case "accept":
		session, err := q.AcceptSession(ctx, c.Name, c.Wait)
		if err != nil {
			return answer{Err: toWire(err)}
		}
		a.Object, a.Name, a.Until = s.keep(session), session.ID(), session.LockedUntil()
		_, a.Unnamed = session.(driver.UnnamedSession)
	case "dead":
		return s.opened(q.DeadLetters(ctx))
	case "peek":
		list, next, err := q.Peek(ctx, c.Name, c.Max)
		a.Deliveries, a.Name, a.Err = s.wire(list), next, toWire(err)
	case "stats":
		st, err := q.Stats(ctx)
		a.Stats, a.Err = st, toWire(err)
	case "close":
		a.Err = toWire(q.Close(ctx))
	default:
		return s.source(ctx, q, c)
	}
	return a
}

func (s *remoteServer) session(ctx context.Context, o driver.Session, c call) (a answer) {
	var err error
	switch c.Op {
	case "renewSession":
		a.Until, err = o.RenewSession(ctx)
	case "state":
		a.State, err = o.(driver.StatefulSession).State(ctx)
	case "setState":
		err = o.(driver.StatefulSession).SetState(ctx, c.State)
	case "close":
		err = o.Close(ctx)
	default:
		return s.source(ctx, o, c)
	}
	a.Err = toWire(err)
	return a
}

func (s *remoteServer) source(ctx context.Context, src driver.Source, c call) (a answer) {
	switch c.Op {
	case "receive":
		list, err := src.Receive(ctx, c.Max, c.Wait)
		a.Deliveries, a.Err = s.wire(list), toWire(err)
	case "settle":
		var list []driver.Settlement
		for _, t := range c.Settlements {
			list = append(list, driver.Settlement{
				Delivery: s.delivery(t.Delivery), Kind: t.Kind, Delay: t.Delay, Reason: t.Reason, Description: t.Description,
			})
		}
		for _, err := range src.Settle(ctx, list) {
			a.Errs = append(a.Errs, toWire(err))
		}
	case "renew":
		var list []*driver.Delivery
		for _, t := range c.Settlements {
			list = append(list, s.delivery(t.Delivery))
		}
		for _, r := range src.Renew(ctx, list) {
			a.Ends, a.Errs = append(a.Ends, r.LockedUntil), append(a.Errs, toWire(r.Err))
		}
	default:
		a.Err = toWire(errors.New("no such call"))
	}
	return a
}
