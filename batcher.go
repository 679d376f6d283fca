package queue

import (
	"context"
	"errors"
	"hash/maphash"
	"maps"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/stream"
)

// BatcherOptions configure a [Batcher].
type BatcherOptions struct {
	// Linger is how long a message waits for others to share its call. 0 means
	// 5 ms.
	Linger time.Duration

	// MaxMessages is how many messages make a batch full, so that it is sent without
	// waiting for Linger. 0 means the broker's limit, but at most 100.
	MaxMessages int

	// MaxPending is how many messages may be accepted and not yet confirmed. Above
	// it, Send and SendAsync wait for room. 0 means 1000.
	MaxPending int

	// InFlight is how many batches are under way at once. Messages of one
	// session always go in order. 0 means 4.
	InFlight int

	// Retry says how long to wait before a failed batch is sent again; a negative
	// delay gives up. Nil means Exponential from 50 ms to 5 s.
	Retry backoff.Policy

	// MaxAttempts is how often a message is sent at most, the first time included. 0
	// means 8.
	MaxAttempts int

	// Breaker guards the calls to the broker: while it is open, batches wait. Nil
	// means no breaker.
	Breaker backoff.BreakerOptions
}

// Batcher gathers messages that are sent one by one into batches, retries messages
// that fail for a transient reason, and blocks its callers when the broker is slow. A
// retry sends the same sealed bytes under the same message ID: if the first had
// arrived after all, a receiver with a replay store drops the second, and a broker
// that drops repeats never stores it. A message that is not sealed is not tried
// again on a broker that drops none, if it may have arrived (ErrUnconfirmed). A Batcher
// is safe for concurrent use, and owns InFlight goroutines until Close.
type Batcher struct {
	s       *Sender
	o       BatcherOptions
	breaker *backoff.Breaker
	seed    maphash.Seed
	room    chan struct{} // holds one token per pending message
	lines   []*batchLine
	ctx     context.Context // of the calls; ends when Close gives up
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu     sync.RWMutex // held for reading while a message enters a line
	closed bool
	turn   int // for messages without a session; guarded by turnMu
	turnMu sync.Mutex

	// A WaitGroup would not do: messages enter while Flush waits for none.
	pendingMu sync.Mutex    // guards what follows
	pending   int           // accepted and not yet answered
	idle      chan struct{} // closed when pending is 0; nil unless Flush waits
}

// batchLine is one of the InFlight lines, worked off by one goroutine.
type batchLine struct {
	in    chan *pendingSend
	hurry chan struct{} // Flush: do not linger
}

type pendingSend struct {
	m     Message
	trace map[string]string // of the call that sent it; nil means none
	done  func(SendResult)
}

// NewBatcher returns a Batcher over s. The caller closes s after the Batcher. o may be
// nil. It fails with ErrInvalidOptions.
func NewBatcher(s *Sender, o *BatcherOptions) (*Batcher, error) {
	const op = "new batch sender"
	if s == nil {
		return nil, wrap(op, "", invalidOption("nil Sender"))
	}
	b := &Batcher{s: s, seed: maphash.MakeSeed()}
	if o != nil {
		b.o = *o
	}
	if b.o.Linger < 0 || b.o.MaxMessages < 0 || b.o.MaxPending < 0 || b.o.InFlight < 0 || b.o.MaxAttempts < 0 {
		return nil, wrap(op, s.queue, invalidOption("BatcherOptions: no value may be negative"))
	}
	if b.o.Linger == 0 {
		b.o.Linger = 5 * time.Millisecond
	}
	limit := max(1, s.caps.MaxBatch)
	if b.o.MaxMessages == 0 {
		b.o.MaxMessages = min(limit, 100)
	}
	if b.o.MaxPending == 0 {
		b.o.MaxPending = 1000
	}
	if b.o.InFlight == 0 {
		b.o.InFlight = 4
	}
	if b.o.Retry == nil {
		b.o.Retry = backoff.Exponential{First: 50 * time.Millisecond, Max: 5 * time.Second}
	}
	if b.o.MaxAttempts == 0 {
		b.o.MaxAttempts = 8
	}
	var err error
	if b.breaker, err = backoff.NewBreaker(&b.o.Breaker); err != nil {
		return nil, wrap(op, s.queue, invalidOption("%v", err))
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.room = make(chan struct{}, b.o.MaxPending)
	for range b.o.InFlight {
		line := &batchLine{in: make(chan *pendingSend, b.o.MaxPending), hurry: make(chan struct{}, 1)}
		b.lines = append(b.lines, line)
		b.workers.Go(func() { b.work(line) })
	}
	return b, nil
}

// Send sends m with others and returns when the broker has confirmed it, or it
// has failed for good. If ctx ends first the message may still be sent: the error
// then wraps ErrUnconfirmed and ctx.Err().
func (b *Batcher) Send(ctx context.Context, m *Message) (SendResult, error) {
	done := make(chan SendResult, 1)
	if err := b.SendAsync(ctx, m, func(r SendResult) { done <- r }); err != nil {
		return SendResult{Err: err}, err
	}
	select {
	case r := <-done:
		return r, r.Err
	case <-ctx.Done():
		err := unconfirmed(b.s.queue, ctx.Err())
		return SendResult{MessageID: m.ID, Err: err}, err
	}
}

// SendAsync accepts m and returns; while MaxPending messages are under way it first waits
// for room. It calls done once, with the result, from a goroutine of the Batcher. done
// must not block: it must not call Send, SendAsync, Flush or Close. The caller must not
// change m.Body before that. An error of SendAsync says that m was not accepted; done is
// then not called.
func (b *Batcher) SendAsync(ctx context.Context, m *Message, done func(SendResult)) error {
	const op = "send"
	if err := checkContext(ctx); err != nil {
		return wrap(op, b.s.queue, err)
	}
	if err := m.validate(); err != nil {
		return wrap(op, b.s.queue, err)
	}
	if done == nil {
		done = func(SendResult) {}
	}
	select {
	case b.room <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-b.ctx.Done():
		return wrap(op, b.s.queue, driver.ErrClosed)
	}
	p := &pendingSend{m: *m, trace: b.s.obs.TraceOf(ctx), done: done}
	p.m.Attributes = maps.Clone(m.Attributes)
	if p.m.ID == "" {
		p.m.ID = newID() // the same for every attempt
	}
	line, err := b.line(&p.m)
	if err != nil {
		<-b.room
		return wrap(op, b.s.queue, err)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		<-b.room
		return wrap(op, b.s.queue, driver.ErrClosed)
	}
	b.pendingMu.Lock()
	b.pending++
	b.pendingMu.Unlock()
	line.in <- p // never waits: a line has room for all that may be pending
	return nil
}

// line chooses the line of a message: always the same for one session.
func (b *Batcher) line(m *Message) (*batchLine, error) {
	if m.SessionID == "" {
		id, err := b.s.sessionID(m)
		if err != nil {
			return nil, err
		}
		m.SessionID = id
	}
	if m.SessionID != "" {
		return b.lines[maphash.String(b.seed, m.SessionID)%uint64(len(b.lines))], nil
	}
	b.turnMu.Lock()
	defer b.turnMu.Unlock()
	// A batch at a time, so that batches fill.
	b.turn = (b.turn + 1) % (b.o.MaxMessages * len(b.lines))
	return b.lines[b.turn/b.o.MaxMessages%len(b.lines)], nil
}

// Flush sends the waiting messages at once, and returns when every accepted message is
// confirmed or has failed. That includes messages that other goroutines send meanwhile.
func (b *Batcher) Flush(ctx context.Context) error {
	if err := checkContext(ctx); err != nil {
		return wrap("flush", b.s.queue, err)
	}
	for _, line := range b.lines {
		select {
		case line.hurry <- struct{}{}:
		default:
		}
	}
	b.pendingMu.Lock()
	if b.pending == 0 {
		b.pendingMu.Unlock()
		return nil
	}
	if b.idle == nil {
		b.idle = make(chan struct{})
	}
	idle := b.idle
	b.pendingMu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close accepts no more messages, sends the waiting ones, and ends the goroutines. If ctx
// ends first, messages that are not confirmed by then fail with ErrClosed. A second Close
// returns nil.
func (b *Batcher) Close(ctx context.Context) error {
	if ctx == nil {
		return wrap("close", b.s.queue, errNilContext)
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	for _, line := range b.lines {
		close(line.in)
	}
	b.mu.Unlock()
	unhook := context.AfterFunc(ctx, b.cancel)
	b.workers.Wait()
	unhook()
	b.cancel()
	return ctx.Err()
}

// work gathers and sends until the line is closed and empty.
func (b *Batcher) work(line *batchLine) {
	for first := range line.in {
		batch := append(make([]*pendingSend, 0, b.o.MaxMessages), first)
		timer := time.NewTimer(b.o.Linger)
		for gathering := true; gathering && len(batch) < b.o.MaxMessages; {
			select {
			case p, ok := <-line.in:
				if !ok {
					gathering = false
					break
				}
				batch = append(batch, p)
			case <-line.hurry:
				// Messages that are already in line join the batch.
				for more := true; more && len(batch) < b.o.MaxMessages; {
					select {
					case p, ok := <-line.in:
						if more = ok; ok {
							batch = append(batch, p)
						}
					default:
						more = false
					}
				}
				gathering = false
			case <-timer.C:
				gathering = false
			}
		}
		timer.Stop()
		b.send(batch)
	}
}

// send sends a batch, and sends again the messages that failed for a transient reason.
func (b *Batcher) send(batch []*pendingSend) {
	messages := make([]*Message, len(batch))
	for i, p := range batch {
		messages[i] = &p.m
	}
	out, err := b.prepare(messages)
	if err != nil {
		for _, p := range batch {
			b.answer(p, SendResult{MessageID: p.m.ID, Err: err})
		}
		return
	}
	for i, p := range batch {
		if out[i].m != nil && p.trace != nil {
			out[i].carries = b.s.carry(&out[i], p.trace)
		}
	}
	left := make([]int, len(out)) // indices of those that are still to be sent
	for i := range left {
		left[i] = i
	}
	for attempt := 1; ; attempt++ {
		b.dispatch(out, left)
		delay := b.o.Retry.Delay(attempt)
		again := left[:0]
		for _, i := range left {
			if attempt < b.o.MaxAttempts && delay >= 0 && b.ctx.Err() == nil && b.repeatable(&out[i]) {
				again = append(again, i)
				continue
			}
			if out[i].result.Err != nil && b.ctx.Err() != nil {
				out[i].result.Err = wrap("send", b.s.queue, driver.ErrClosed)
			}
			out[i].conclude(b.s.queue)
			b.answer(batch[i], out[i].result)
		}
		if left = again; len(left) == 0 {
			return
		}
		var wait time.Duration
		for _, i := range left {
			var e *Error
			if errors.As(out[i].result.Err, &e) {
				wait = max(wait, e.RetryAfter)
			}
		}
		wait = max(wait, delay)
		sleepUntil(b.ctx, time.Now().Add(wait))
	}
}

// repeatable reports whether a message may be tried again: it may succeed, and a second
// copy of it does no harm if the broker may hold one.
func (b *Batcher) repeatable(o *outgoing) bool {
	return o.m != nil && retriable(o.result.Err) && (o.state != unknown || b.s.repeatable(o))
}

// retriable reports whether sending the same again may succeed.
func retriable(err error) bool {
	if errors.Is(err, ErrNotSent) {
		return true // another of its session failed; that one decides
	}
	var e *Error
	return errors.As(err, &e) && e.Transient
}

// prepare seals once; only a key provider that does not answer is asked again.
func (b *Batcher) prepare(messages []*Message) ([]outgoing, error) {
	for attempt := 1; ; attempt++ {
		out, err := b.s.prepare(b.ctx, stream.Plain, messages)
		if err == nil {
			return out, nil
		}
		if b.ctx.Err() != nil {
			return nil, wrap("send", b.s.queue, driver.ErrClosed)
		}
		delay := b.o.Retry.Delay(attempt)
		if !errors.Is(err, ErrKeyProvider) || attempt >= b.o.MaxAttempts || delay < 0 {
			return nil, err
		}
		sleepUntil(b.ctx, time.Now().Add(delay))
	}
}

// dispatch sends the messages that left names, through the breaker, and puts the
// results into out.
func (b *Batcher) dispatch(out []outgoing, left []int) {
	var permit backoff.Permit
	for {
		var wait time.Duration
		var ok bool
		if permit, wait, ok = b.breaker.Allow(); ok {
			break
		}
		if !sleepUntil(b.ctx, time.Now().Add(max(wait, time.Millisecond))) {
			b.fail(out, left)
			return
		}
	}
	now := make([]outgoing, 0, len(left))
	at := make([]int, 0, len(left))
	for _, i := range left {
		if out[i].m == nil || out[i].result.Err != nil && !retriable(out[i].result.Err) {
			continue // it failed while it was prepared
		}
		o := out[i]
		o.result.Err = nil
		now, at = append(now, o), append(at, i)
	}
	if len(now) == 0 {
		permit.Unused() // no call was made
		return
	}
	b.s.dispatch(b.ctx, now, b.s.sendBatch)
	healthy := true
	for j, i := range at {
		out[i] = now[j]
		var e *Error
		if errors.As(now[j].result.Err, &e) && e.Transient {
			healthy = false
		}
	}
	switch {
	case b.ctx.Err() != nil:
		permit.Unused()
	case healthy:
		permit.Succeeded()
	default:
		permit.Failed()
	}
}

func (b *Batcher) fail(out []outgoing, left []int) {
	for _, i := range left {
		out[i].result.Err = wrap("send", b.s.queue, driver.ErrClosed)
	}
}

func (b *Batcher) answer(p *pendingSend, r SendResult) {
	p.done(r)
	<-b.room
	b.pendingMu.Lock()
	defer b.pendingMu.Unlock()
	if b.pending--; b.pending == 0 && b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
}
