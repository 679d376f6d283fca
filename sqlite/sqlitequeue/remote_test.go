package sqlitequeue_test

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// remoteBroker is a driver.Broker whose broker runs in another process, so
// that the suites can be run between processes. It carries calls and answers by
// gob and adds nothing of its own.
type remoteBroker struct {
	cmd *exec.Cmd
	in  io.WriteCloser

	sending sync.Mutex // guards out
	out     *gob.Encoder

	mu      sync.Mutex // guards what follows
	last    uint64
	waiting map[uint64]chan answer
	dead    error
	reader  chan struct{} // closed when the reading goroutine has ended
}

// call is what goes to the process.
type call struct {
	ID          uint64
	Cancel      bool // end the call of this ID
	Op          string
	Object      uint64 // queue or session
	Name        string
	Options     *driver.QueueOptions
	Messages    []driver.Message
	Max         int
	Wait        time.Duration
	Settlements []settlement
	State       []byte
}

type settlement struct {
	Delivery            uint64 // 0: none of ours
	Kind                driver.SettleKind
	Delay               time.Duration
	Reason, Description string
}

// answer is what comes back.
type answer struct {
	ID           uint64
	Object       uint64
	Name         string
	Until        time.Time
	Unnamed      bool // of a session
	Deliveries   []delivery
	BrokerIDs    []string
	Errs         []wireError
	Ends         []time.Time
	Stats        driver.Stats
	Capabilities driver.Capabilities
	State        []byte
	Err          wireError
}

type delivery struct {
	D  driver.Delivery
	ID uint64
}

// wireError is an error as drivers have them.
type wireError struct {
	Some        bool
	Text        string
	Kind        driver.Kind
	Classified  bool
	Unsupported bool
	Canceled    bool
	Deadline    bool
	TooLarge    *driver.TooLargeError
}

func toWire(err error) wireError {
	if err == nil {
		return wireError{}
	}
	w := wireError{Some: true, Text: err.Error()}
	var d *driver.Error
	if w.Classified = errors.As(err, &d); w.Classified {
		w.Kind = d.Kind
	}
	w.Unsupported = errors.Is(err, errors.ErrUnsupported)
	w.Canceled = errors.Is(err, context.Canceled)
	w.Deadline = errors.Is(err, context.DeadlineExceeded)
	errors.As(err, &w.TooLarge)
	return w
}

func (w wireError) error() error {
	err := errors.New(w.Text)
	switch {
	case !w.Some:
		return nil
	case w.Canceled:
		return context.Canceled
	case w.Deadline:
		return context.DeadlineExceeded
	case w.TooLarge != nil:
		return &driver.Error{Kind: w.Kind, Err: w.TooLarge}
	case w.Unsupported:
		err = fmt.Errorf("%w: %w", err, errors.ErrUnsupported)
	}
	if w.Classified {
		return &driver.Error{Kind: w.Kind, Err: err}
	}
	return err
}

// connectRemote starts a process with a connection to the file.
func connectRemote(tb testing.TB, path string) (driver.Broker, error) {
	cmd, err := command("broker", path)
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b := &remoteBroker{cmd: cmd, in: in, out: gob.NewEncoder(in), waiting: make(map[uint64]chan answer), reader: make(chan struct{})}
	tb.Cleanup(func() { _ = cmd.Process.Kill() })
	go b.read(gob.NewDecoder(out))
	return b, nil
}

func (b *remoteBroker) read(in *gob.Decoder) {
	defer close(b.reader)
	for {
		var a answer
		err := in.Decode(&a)
		b.mu.Lock()
		if err != nil {
			b.dead = &driver.Error{Kind: driver.Closed, Err: err}
			for id, c := range b.waiting {
				close(c)
				delete(b.waiting, id)
			}
			b.mu.Unlock()
			return
		}
		c := b.waiting[a.ID]
		delete(b.waiting, a.ID)
		b.mu.Unlock()
		if c != nil {
			c <- a
		}
	}
}

func (b *remoteBroker) send(c call) {
	b.sending.Lock()
	defer b.sending.Unlock()
	_ = b.out.Encode(c) // a broken pipe ends the reader, too
}

// do makes a call. The process hears when ctx ends, and answers all the same.
func (b *remoteBroker) do(ctx context.Context, c call) answer {
	if err := ctx.Err(); err != nil {
		return answer{Err: toWire(err)}
	}
	ch := make(chan answer, 1)
	b.mu.Lock()
	if b.dead != nil {
		b.mu.Unlock()
		return answer{Err: toWire(&driver.Error{Kind: driver.Closed})}
	}
	b.last++
	c.ID = b.last
	b.waiting[c.ID] = ch
	b.mu.Unlock()
	b.send(c)
	var a answer
	var ok bool
	select {
	case a, ok = <-ch:
	case <-ctx.Done():
		b.send(call{ID: c.ID, Cancel: true})
		a, ok = <-ch
		if a.Err.Canceled {
			a.Err = toWire(ctx.Err())
		}
	}
	if !ok {
		return answer{Err: toWire(&driver.Error{Kind: driver.Closed})}
	}
	return a
}

func (b *remoteBroker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	a := b.do(ctx, call{Op: "open", Name: name, Options: o})
	if err := a.Err.error(); err != nil {
		return nil, err
	}
	return &remoteQueue{remoteSource: remoteSource{b, a.Object}, capabilities: a.Capabilities}, nil
}

func (b *remoteBroker) Close(ctx context.Context) error {
	b.mu.Lock()
	dead := b.dead
	b.mu.Unlock()
	if dead != nil {
		return nil
	}
	err := b.do(ctx, call{Op: "closeAll"}).Err.error()
	_ = b.in.Close()
	<-b.reader
	return errors.Join(err, b.cmd.Wait())
}

// closeObject closes a queue or a session, which may have gone with its broker.
func (b *remoteBroker) closeObject(ctx context.Context, object uint64) error {
	b.mu.Lock()
	dead := b.dead
	b.mu.Unlock()
	if dead != nil {
		return nil
	}
	return b.do(ctx, call{Op: "close", Object: object}).Err.error()
}

type remoteSource struct {
	b      *remoteBroker
	object uint64
}

func (s *remoteSource) Receive(ctx context.Context, limit int, wait time.Duration) ([]*driver.Delivery, error) {
	a := s.b.do(ctx, call{Op: "receive", Object: s.object, Max: limit, Wait: wait})
	return s.deliveries(a), a.Err.error()
}

// remoteReceipt is the number of a delivery in the other process.
type remoteReceipt struct {
	source *remoteSource
	id     uint64
}

func (s *remoteSource) deliveries(a answer) (out []*driver.Delivery) {
	for _, d := range a.Deliveries {
		d.D.Receipt = remoteReceipt{s, d.ID}
		out = append(out, &d.D)
	}
	return out
}

func (s *remoteSource) number(d *driver.Delivery) uint64 {
	if d == nil {
		return 0
	}
	r, _ := d.Receipt.(remoteReceipt)
	return r.id
}

func (s *remoteSource) Settle(ctx context.Context, list []driver.Settlement) []error {
	c := call{Op: "settle", Object: s.object}
	for _, t := range list {
		c.Settlements = append(c.Settlements, settlement{s.number(t.Delivery), t.Kind, t.Delay, t.Reason, t.Description})
	}
	return errorsOf(s.b.do(ctx, c), len(list))
}

func (s *remoteSource) Renew(ctx context.Context, list []*driver.Delivery) []driver.RenewResult {
	c := call{Op: "renew", Object: s.object}
	for _, d := range list {
		c.Settlements = append(c.Settlements, settlement{Delivery: s.number(d)})
	}
	a := s.b.do(ctx, c)
	results := make([]driver.RenewResult, len(list))
	for i, err := range errorsOf(a, len(list)) {
		x := &results[i]
		if x.Err = err; err == nil {
			x.LockedUntil = a.Ends[i]
			list[i].LockedUntil = x.LockedUntil
		}
	}
	return results
}

func errorsOf(a answer, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		if errs[i] = a.Err.error(); errs[i] == nil {
			errs[i] = a.Errs[i].error()
		}
	}
	return errs
}

type remoteQueue struct {
	driver.Unimplemented
	remoteSource
	capabilities driver.Capabilities
}

func (q *remoteQueue) Capabilities() driver.Capabilities { return q.capabilities }

func (q *remoteQueue) Send(ctx context.Context, list []*driver.Message) []driver.SendResult {
	c := call{Op: "send", Object: q.object}
	for _, m := range list {
		c.Messages = append(c.Messages, *m)
	}
	a := q.b.do(ctx, c)
	results := make([]driver.SendResult, len(list))
	for i, err := range errorsOf(a, len(list)) {
		if results[i].Err = err; err == nil {
			results[i].BrokerID = a.BrokerIDs[i]
		}
	}
	return results
}

func (q *remoteQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	a := q.b.do(ctx, call{Op: "accept", Object: q.object, Name: id, Wait: wait})
	if err := a.Err.error(); err != nil {
		return nil, err
	}
	return &remoteSession{remoteSource: remoteSource{q.b, a.Object}, id: a.Name, unnamed: a.Unnamed, until: a.Until}, nil
}

func (q *remoteQueue) DeadLetters(ctx context.Context) (driver.Queue, error) {
	a := q.b.do(ctx, call{Op: "dead", Object: q.object})
	if err := a.Err.error(); err != nil {
		return nil, err
	}
	return &remoteQueue{remoteSource: remoteSource{q.b, a.Object}, capabilities: a.Capabilities}, nil
}

func (q *remoteQueue) Peek(ctx context.Context, cursor string, limit int) ([]*driver.Delivery, string, error) {
	a := q.b.do(ctx, call{Op: "peek", Object: q.object, Name: cursor, Max: limit})
	list := q.deliveries(a)
	for _, d := range list {
		d.Receipt = nil
	}
	return list, a.Name, a.Err.error()
}

func (q *remoteQueue) Stats(ctx context.Context) (driver.Stats, error) {
	a := q.b.do(ctx, call{Op: "stats", Object: q.object})
	return a.Stats, a.Err.error()
}

func (q *remoteQueue) Size(m *driver.Message) int { return new(sqlitequeue.Queue).Size(m) }

func (q *remoteQueue) Close(ctx context.Context) error { return q.b.closeObject(ctx, q.object) }

type remoteSession struct {
	remoteSource
	id      string
	unnamed bool

	mu    sync.Mutex // guards until
	until time.Time
}

func (s *remoteSession) ID() string { return s.id }

func (s *remoteSession) Unnamed() bool { return s.unnamed }

func (s *remoteSession) LockedUntil() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until
}

func (s *remoteSession) RenewSession(ctx context.Context) (time.Time, error) {
	a := s.b.do(ctx, call{Op: "renewSession", Object: s.object})
	if !a.Err.Some {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.until = a.Until
	}
	return a.Until, a.Err.error()
}

// Renew renews the session's lock, so it moves LockedUntil, too.
func (s *remoteSession) Renew(ctx context.Context, list []*driver.Delivery) []driver.RenewResult {
	results := s.remoteSource.Renew(ctx, list)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		if r.LockedUntil.After(s.until) {
			s.until = r.LockedUntil
		}
	}
	return results
}

func (s *remoteSession) State(ctx context.Context) ([]byte, error) {
	a := s.b.do(ctx, call{Op: "state", Object: s.object})
	return a.State, a.Err.error()
}

func (s *remoteSession) SetState(ctx context.Context, state []byte) error {
	return s.b.do(ctx, call{Op: "setState", Object: s.object, State: state}).Err.error()
}

func (s *remoteSession) Close(ctx context.Context) error { return s.b.closeObject(ctx, s.object) }
