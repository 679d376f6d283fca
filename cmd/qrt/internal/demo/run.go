package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/cost"
	"github.com/queue-runtime/queue/cmd/qrt/internal/webhook"
	"github.com/queue-runtime/queue/keys"
)

// Progress shows how far the run is.
type Progress interface {
	// Begin starts a part of total steps; the one before is over.
	Begin(title string, total int)
	// Step notes n more steps. It is called from several goroutines at once.
	Step(n int)
	// Done says that a part of the report is complete. Report must not be kept.
	Done(part Part, r *Report)
}

// Part is a part of the report.
type Part int

// The parts, in order.
const (
	PartRouter Part = iota
	PartRotation
	PartPolicies
	PartAttacks
	PartThroughput
)

// Config says what to run.
type Config struct {
	Broker Broker

	// Events are the webhooks to send, repeated until there are Messages of
	// them. Nil means generated events, all different.
	Events []webhook.Event

	// Messages is how many the router sends; at least 60.
	Messages int

	// Attempts is how often each attack is made; at least 1.
	Attempts int

	// Logger gets the library's lines.
	Logger *slog.Logger

	// Progress may be nil.
	Progress Progress
}

// MinMessages is the least that Config.Messages can be: each part needs some.
const MinMessages = 60

// receiveTimeout is for how long nothing may arrive before what is missing counts as
// lost. wait is how long a bot waits for more: with each session, for its end.
// maxAge is how old a message may be; nothing here takes that long.
const (
	receiveTimeout = 20 * time.Second
	wait           = 50 * time.Millisecond
	maxAge         = time.Hour
)

// Run runs the demonstration. Its error says that it could not be run to its
// end; what went wrong in it is in the report.
func Run(ctx context.Context, c Config) (*Report, error) {
	if c.Messages < MinMessages || c.Attempts < 1 {
		return nil, fmt.Errorf("demo: %d messages and %d attempts: use at least %d and 1", c.Messages, c.Attempts, MinMessages)
	}
	if c.Events == nil {
		c.Events = webhook.Generate(c.Messages, uint64(time.Now().UnixNano())) //nolint:gosec // G115: any seed will do
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Progress == nil {
		c.Progress = silent{}
	}
	r := &run{Config: c, report: &Report{}, ledger: NewLedger()}
	for _, part := range []struct {
		part Part
		run  func(context.Context) error
	}{
		{PartRouter, r.routing},
		{PartRotation, r.rotation},
		{PartPolicies, r.policies},
		{PartAttacks, r.attacks},
		{PartThroughput, r.throughput},
	} {
		if err := part.run(ctx); err != nil {
			return nil, err
		}
		c.Progress.Done(part.part, r.report)
	}
	r.report.Lost = r.ledger.Lost("")
	if r.report.Lost > 0 {
		r.fault("%d messages were lost", r.report.Lost)
	}
	r.report.OK = len(r.report.Faults) == 0
	return r.report, nil
}

type silent struct{}

func (silent) Begin(string, int)  {}
func (silent) Step(int)           {}
func (silent) Done(Part, *Report) {}

// run is one run of the demonstration.
type run struct {
	Config
	report *Report
	ledger *Ledger
	next   int           // of Events
	serial int           // of messages
	pace   time.Duration // to send and receive one message
	short  [][]byte      // bodies for attacks

	mu sync.Mutex // guards Report.Faults
}

// fault notes something that did not come out as it should.
func (r *run) fault(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Faults = append(r.report.Faults, fmt.Sprintf(format, args...))
}

// event returns the next webhook.
func (r *run) event() *webhook.Event {
	e := &r.Events[r.next%len(r.Events)]
	r.next++
	return e
}

// message makes the message for a webhook.
func (r *run) message(e *webhook.Event) *queue.Message {
	r.serial++
	session := e.Session
	if session == "" {
		session = e.Name // of no repository: some brokers want a session on each
	}
	return &queue.Message{
		ID:            fmt.Sprintf("delivery-%06d", r.serial),
		SessionID:     session,
		CorrelationID: fmt.Sprintf("hook-%d", r.serial%17),
		ContentType:   "application/json",
		Attributes:    map[string]string{"event": e.Name, "hook": "github"},
		Body:          e.Body,
	}
}

// contentOf is what the ledger keeps of a message.
func contentOf(m *queue.Message) *Content {
	return &Content{ID: m.ID, Session: m.SessionID, CorrelationID: m.CorrelationID, ContentType: m.ContentType, Attributes: m.Attributes, Body: m.Body}
}

// endpoint is a client of its own, as a process has one.
type endpoint struct {
	*queue.Client
}

// connect opens a client. Close it with shut.
func (r *run) connect(ctx context.Context, o *queue.Options) (*endpoint, error) {
	p, err := r.Broker.Connect(ctx)
	if err != nil {
		return nil, err
	}
	o.Logger = r.Logger
	c, err := queue.New(p, o)
	if err != nil {
		_ = p.Close(ctx) // the first error is the one that tells
		return nil, err
	}
	return &endpoint{c}, nil
}

// shut closes the client; err is the function's own error, which comes first.
func (e *endpoint) shut(ctx context.Context, err *error) {
	if cerr := e.Close(context.WithoutCancel(ctx)); *err == nil {
		*err = cerr
	}
}

// secret is the bytes of a key that several processes are given.
type secret struct {
	id    keys.ID
	bytes []byte
}

func newSecret(id string) secret {
	s := secret{keys.ID(id), randomBytes(keys.Size)}
	return s
}

// key makes a key for one process: each zeroes its own.
func (s secret) key() (*keys.Key, error) {
	return keys.New(s.id, s.bytes, &keys.Options{Created: time.Now()})
}

// senderID names the router in what it seals.
const senderID = "webhook-router"

// senderKey makes the key of the router for one process: it neither opens nor forges what
// another sender seals.
func (s secret) senderKey() (*keys.Key, error) {
	master, err := s.key()
	if err != nil {
		return nil, err
	}
	defer master.Destroy()
	return master.Sender(senderID)
}

// ring makes a key ring for one process, the first key being current.
func ring(secrets ...secret) (*keys.Ring, error) {
	var list []*keys.Key
	for _, s := range secrets {
		k, err := s.key()
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return keys.NewRing(list...)
}

// batchSize is how many messages are sent in one call.
const batchSize = 50

// send sends messages in batches. The ledger has them before: they may arrive
// before the broker's confirmation does.
func (r *run) send(ctx context.Context, s *queue.Sender, name string, messages []*queue.Message) error {
	for chunk := range slices.Chunk(messages, batchSize) {
		for _, m := range chunk {
			r.ledger.Sent(name, contentOf(m))
		}
		if _, err := s.SendBatch(ctx, chunk); err != nil {
			return err
		}
		r.Progress.Step(len(chunk))
	}
	return nil
}

// receive receives until done reports true, or nothing has come for so long that
// what is missing is lost. handle is called for one delivery at a time, and the
// delivery is completed after it.
func (r *run) receive(ctx context.Context, rx *queue.Receiver, handle func(*queue.Delivery), done func() bool) error {
	if rx.Capabilities().SessionOnly {
		return r.receiveSessions(ctx, rx, handle, done)
	}
	last := time.Now()
	for !done() && time.Since(last) < receiveTimeout {
		batch, err := rx.Receive(ctx, batchSize)
		if errors.Is(err, queue.ErrNoMessage) {
			continue
		}
		if err != nil {
			return err
		}
		last = time.Now()
		for _, d := range batch {
			handle(d)
		}
		if err := cost.Complete(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// sessionWorkers is how many sessions are received from at once, on a broker that
// has no other way to receive.
const sessionWorkers = 8

// receiveSessions is receive on a queue whose messages come by session only.
func (r *run) receiveSessions(ctx context.Context, rx *queue.Receiver, handle func(*queue.Delivery), done func() bool) error {
	var mu sync.Mutex // guards last, and what handle and done look at
	last := time.Now()
	over := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return done() || time.Since(last) >= receiveTimeout
	}
	one := func(ctx context.Context) error {
		for !over() {
			s, err := rx.NextSession(ctx)
			if errors.Is(err, queue.ErrNoSession) {
				continue
			}
			if err != nil {
				return err
			}
			for err == nil {
				var batch []*queue.Delivery
				if batch, err = s.Receive(ctx, batchSize); err != nil {
					break
				}
				mu.Lock()
				last = time.Now()
				for _, d := range batch {
					handle(d)
				}
				mu.Unlock()
				err = cost.Complete(ctx, batch)
			}
			if errors.Is(err, queue.ErrNoMessage) {
				err = nil // the session is empty
			}
			if err = errors.Join(err, s.Close(context.WithoutCancel(ctx))); err != nil {
				return err
			}
		}
		return nil
	}
	return together(ctx, slices.Repeat([]func(context.Context) error{one}, sessionWorkers)...)
}

// together runs functions at once and returns when all have ended; the first
// error ends the others.
func together(ctx context.Context, f ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	errs := make([]error, len(f))
	for i := range f {
		wg.Go(func() {
			if errs[i] = f[i](ctx); errs[i] != nil {
				cancel(errs[i])
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}
