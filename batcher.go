package queue

import (
	"context"
	"errors"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/stream"
)

// BatcherOptions configure a [Batcher].
type BatcherOptions struct {
	// Linger is how long a message waits for others to share its call while other calls
	// are under way. While none is, it goes at once. 0 means 5 ms.
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
	// means 64: with the default Breaker some 8 minutes, of which the half of the
	// sender's MaxMessageAge may leave less.
	MaxAttempts int

	// Breaker guards the calls to the broker: while it is open, batches wait.
	// If its Open and FirstOpen are 0, they are 8 s and 1 s.
	Breaker backoff.BreakerOptions
}

// Batcher gathers messages that are sent one by one into batches, retries
// what fails for a passing reason, and pushes back when the broker is slow. A
// retry sends the same sealed bytes under the same message ID: if the first
// arrived after all, a receiver that tracks replays handles one of them, and a
// broker that drops repeats never stores the second. A message that is not sealed is
// not tried again on a broker that drops none, if it may have arrived (ErrUnconfirmed).
//
// A message is sealed when the breaker lets its first attempt through, so that
// waiting out an outage does not age it. If the key provider does not answer, the
// batch is tried again after Retry, at the earliest after 1 s, doubling to 30 s. One
// that was tried and is older than half of the sender's MaxMessageAge is tried no
// more: it would expire before it is received.
//
// If a message of a session fails for good, the other messages of its session that were accepted
// before its answer fail with ErrNotSent, so that sending the failed ones again keeps
// the order.
//
// It is safe for concurrent use, and owns InFlight goroutines until Close.
type Batcher struct {
	s             *Sender
	o             BatcherOptions
	breaker       *backoff.Breaker
	seed          maphash.Seed
	pendingTokens chan struct{}   // holds one token for each pending message
	ctx           context.Context // of the calls; ends when Close gives up
	cancel        context.CancelFunc
	workers       []*batchWorker // as many as InFlight
	goroutines    sync.WaitGroup // of workers

	mu       sync.Mutex // guards what follows, and the messages of the workers
	closed   bool
	rotation int           // counts messages without a session, which take workers in rotation
	underWay int           // batches that were taken and not yet answered in full
	pending  int           // messages that were accepted and not yet answered
	idle     chan struct{} // closed when pending is 0; nil unless Flush waits
}

// batchWorker sends the messages of some sessions in order, from one goroutine. Messages without
// a session go to any.
type batchWorker struct {
	wake chan struct{} // holds one token if collect should look again

	// Guarded by the Batcher's mu.
	waiting []*pendingSend
}

// pendingSend is a message that was accepted and not yet answered.
type pendingSend struct {
	m     Message
	trace map[string]string // of the call that sent it; nil means none
	done  func(SendResult)
	since time.Time // of its acceptance; zero once it should not linger
	out   *outgoing // once it is prepared
}

// NewBatcher returns a Batcher over s. The caller closes s after the Batcher. o may be
// nil. It fails with ErrInvalidOptions.
func NewBatcher(s *Sender, o *BatcherOptions) (*Batcher, error) {
	const op = "new batcher"
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
		b.o.MaxAttempts = 64
	}
	if b.o.Breaker.Open == 0 && b.o.Breaker.FirstOpen == 0 {
		// A short outage is over in seconds, and a long one too: one call in 8 s burdens no broker.
		b.o.Breaker.FirstOpen, b.o.Breaker.Open = time.Second, 8*time.Second
	}
	var err error
	if b.breaker, err = backoff.NewBreaker(&b.o.Breaker); err != nil {
		return nil, wrap(op, s.queue, invalidOption("%v", err))
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.pendingTokens = make(chan struct{}, b.o.MaxPending)
	for range b.o.InFlight {
		w := &batchWorker{wake: make(chan struct{}, 1)}
		b.workers = append(b.workers, w)
		b.goroutines.Go(func() { b.work(w) })
	}
	return b, nil
}

// Send sends m in a batch with others. It returns when the broker has confirmed m, or
// when m has failed for good. If ctx ends first, the message may still be sent: the error
// then wraps ErrUnconfirmed and ctx.Err(), and the result has the MessageID by which to look
// for it.
func (b *Batcher) Send(ctx context.Context, m *Message) (SendResult, error) {
	done := make(chan SendResult, 1)
	id, err := b.enqueue(ctx, m, func(r SendResult) { done <- r })
	if err != nil {
		return SendResult{MessageID: id, Err: err}, err
	}
	select {
	case r := <-done:
		return r, r.Err
	case <-ctx.Done():
		err := unconfirmed(b.s.queue, ctx.Err())
		return SendResult{MessageID: id, Err: err}, err
	}
}

// SendAsync accepts m, waiting for room while MaxPending are under way, and
// calls done once with what became of it, from a goroutine of the Batcher;
// done must not block, and so not call Send, SendAsync, Flush or Close. m.Body must not
// be changed until then. Its error says that m was not accepted; done is then not called.
func (b *Batcher) SendAsync(ctx context.Context, m *Message, done func(SendResult)) error {
	if done == nil {
		done = func(SendResult) {}
	}
	_, err := b.enqueue(ctx, m, done)
	return err
}

// enqueue is SendAsync. id is the message's, or the one that it made; empty if m is not valid.
func (b *Batcher) enqueue(ctx context.Context, m *Message, done func(SendResult)) (id string, err error) {
	const op = "send"
	if err := checkContext(ctx); err != nil {
		return "", wrap(op, b.s.queue, err)
	}
	if err := m.validate(); err != nil {
		return "", wrap(op, b.s.queue, err)
	}
	p := &pendingSend{m: *m, trace: b.s.obs.TraceOf(ctx), done: done}
	p.m.Attributes = maps.Clone(m.Attributes)
	if p.m.ID == "" {
		p.m.ID = newID() // the same for every attempt
	}
	id = p.m.ID
	if p.m.SessionID == "" {
		session, err := b.s.sessionID(m)
		if err != nil {
			return id, wrap(op, b.s.queue, err)
		}
		p.m.SessionID = session
	}
	select {
	case b.pendingTokens <- struct{}{}:
	case <-ctx.Done():
		return id, ctx.Err()
	case <-b.ctx.Done():
		return id, wrap(op, b.s.queue, driver.ErrClosed)
	}
	p.since = time.Now()
	if !b.accept(p) {
		<-b.pendingTokens
		return id, wrap(op, b.s.queue, driver.ErrClosed)
	}
	return id, nil
}

// accept gives p to its worker; false if the Batcher is closed.
func (b *Batcher) accept(p *pendingSend) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.pending++
	w := b.workers[b.workerOf(p.m.SessionID)]
	w.waiting = append(w.waiting, p)
	w.poke()
	return true
}

// workerOf is the index of the worker of a message: always the same for one session. Messages
// without one change the worker after each batch, so that batches fill. Called under mu.
func (b *Batcher) workerOf(session string) int {
	if session != "" {
		return int(maphash.String(b.seed, session) % uint64(len(b.workers))) //nolint:gosec // G115: less than InFlight
	}
	b.rotation = (b.rotation + 1) % (b.o.MaxMessages * len(b.workers))
	return b.rotation / b.o.MaxMessages
}

// poke makes collect look again.
func (w *batchWorker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Flush sends the waiting messages at once, and returns when every accepted message is
// confirmed or has failed. That includes messages that other goroutines send meanwhile.
func (b *Batcher) Flush(ctx context.Context) error {
	if err := checkContext(ctx); err != nil {
		return wrap("flush", b.s.queue, err)
	}
	idle := b.endLinger()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// endLinger makes what waits go without lingering. It returns a channel that is closed when
// everything is answered; nil if everything is.
func (b *Batcher) endLinger() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pending == 0 {
		return nil
	}
	for _, w := range b.workers {
		for _, p := range w.waiting {
			p.since = time.Time{}
		}
		w.poke()
	}
	if b.idle == nil {
		b.idle = make(chan struct{})
	}
	return b.idle
}

// Close accepts nothing more, sends what waits, and ends the goroutines. When
// ctx ends first, what is not confirmed by then fails with ErrClosed. A second
// Close returns nil.
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
	for _, w := range b.workers {
		w.poke()
	}
	b.mu.Unlock()
	unhook := context.AfterFunc(ctx, b.cancel)
	b.goroutines.Wait()
	unhook()
	b.cancel()
	return ctx.Err()
}

// work gathers and sends until the Batcher is closed and nothing waits for w.
func (b *Batcher) work(w *batchWorker) {
	for batch := b.collect(w); batch != nil; batch = b.collect(w) {
		b.send(w, batch)
		b.ended()
	}
}

// collect waits for the next batch of w; nil if there will be none.
func (b *Batcher) collect(w *batchWorker) []*pendingSend {
	for {
		batch, wait, over := b.drain(w, time.Now())
		switch {
		case batch != nil || over:
			return batch
		case wait == 0:
			<-w.wake
		default:
			timer := time.NewTimer(wait)
			select {
			case <-w.wake:
			case <-timer.C:
			}
			timer.Stop()
		}
	}
}

// drain takes the next batch if it should go now. If not, wait is how long the first
// message may linger, 0 if there is none; over says that none will come.
func (b *Batcher) drain(w *batchWorker, now time.Time) (batch []*pendingSend, wait time.Duration, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(w.waiting), b.o.MaxMessages)
	if n == 0 {
		return nil, 0, b.closed
	}
	wait = w.waiting[0].since.Add(b.o.Linger).Sub(now)
	if n < b.o.MaxMessages && !b.closed && b.underWay > 0 && wait > 0 {
		return nil, wait, false
	}
	batch = slices.Clone(w.waiting[:n])
	w.waiting = slices.Delete(w.waiting, 0, n)
	b.underWay++
	return batch, 0, false
}

// ended notes that a batch is answered in full: what lingers goes if it was the last.
func (b *Batcher) ended() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.underWay--; b.underWay > 0 {
		return
	}
	for _, w := range b.workers {
		w.poke()
	}
}

// send sends a batch, and again the messages of it that failed for a passing reason.
func (b *Batcher) send(w *batchWorker, batch []*pendingSend) {
	var out []outgoing // of batch, once it is sealed
	var sealed time.Time
	for attempt := 1; ; attempt++ {
		permit, ok := b.admit()
		if !ok {
			b.fail(w, batch, wrap("send", b.s.queue, driver.ErrClosed))
			return
		}
		last := out != nil && b.tooOld(sealed)
		if last {
			permit.Unused()
			b.answerEnded(w, batch, last)
			return
		}
		delay := b.o.Retry.Delay(attempt)
		last = attempt >= b.o.MaxAttempts || delay < 0
		if out == nil {
			var err error
			sealed = time.Now()
			if out, err = b.prepare(batch, last); err != nil {
				permit.Unused()
				if last || !errors.Is(err, ErrKeyProvider) || !backoff.Sleep(b.ctx, max(delay, keysDelay.Longest(attempt))) {
					b.fail(w, batch, err)
					return
				}
				continue
			}
		}
		b.attempt(out, &permit)
		wait, again := b.answerEnded(w, batch, last)
		if !again {
			return
		}
		backoff.Sleep(b.ctx, max(wait, delay))
	}
}

// tooOld reports whether messages that were sealed then should be sent no more: the half
// of their life that is left is for the queue.
func (b *Batcher) tooOld(sealed time.Time) bool {
	c := &b.s.cfg
	return c.Enabled && c.MaxMessageAge != QueueRetention && time.Since(sealed) > c.MaxMessageAge/2
}

// admit waits until the breaker lets a call through; false if Close gives up first.
func (b *Batcher) admit() (backoff.Permit, bool) {
	for b.ctx.Err() == nil {
		permit, wait, ok := b.breaker.Allow()
		if ok {
			return permit, true
		}
		backoff.Sleep(b.ctx, max(wait, time.Millisecond))
	}
	return backoff.Permit{}, false
}

// keysDelay is how long a batch waits at least for a key provider that does not answer: a
// keys.Cached holds a failure for as long, and would answer an earlier attempt with it.
var keysDelay = backoff.Exponential{First: time.Second, Max: 30 * time.Second}

// prepare seals a batch. If the key provider does not answer for one message, it fails for
// all: a message that was numbered and sealed before would overtake it in the numbers of
// their session. The last attempt leaves that error to the messages that it is of.
func (b *Batcher) prepare(batch []*pendingSend, last bool) ([]outgoing, error) {
	messages := make([]*Message, len(batch))
	for i, p := range batch {
		messages[i] = &p.m
	}
	out, _, err := b.s.prepare(b.ctx, stream.Plain, messages)
	if err != nil {
		return nil, err
	}
	for i := range out {
		if err := out[i].result.Err; !last && errors.Is(err, ErrKeyProvider) {
			for k := range out {
				out[k].number.Void()
			}
			return nil, err
		}
	}
	for i, p := range batch {
		p.out = &out[i]
		if p.out.m != nil {
			p.out.carries = b.s.carry(p.out, p.trace)
		}
	}
	return out, nil
}

// attempt sends what is not answered yet, and tells the breaker how that went.
func (b *Batcher) attempt(out []outgoing, permit *backoff.Permit) {
	for i := range out {
		if o := &out[i]; !o.answered && o.m != nil {
			o.result.Err = nil
		}
	}
	called, healthy := false, true
	b.s.dispatch(b.ctx, out, func(ctx context.Context, call []*outgoing) {
		called = true
		b.s.sendBatch(ctx, call)
		for _, o := range call {
			healthy = healthy && !transient(o.result.Err)
		}
	})
	switch {
	case !called || b.ctx.Err() != nil:
		permit.Unused()
	case healthy:
		permit.Succeeded()
	default:
		permit.Failed()
	}
}

// repeatable reports whether a message that failed may be tried again: it may succeed, and
// a second copy of it does no harm if the broker may hold one.
func (b *Batcher) repeatable(o *outgoing) bool {
	return transient(o.result.Err) && (o.state != unknown || b.s.repeatable(o))
}

// transient reports whether sending the same again may succeed.
func transient(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Transient
}

// answerEnded answers the messages that need no further attempt, and those that wait behind
// one that failed for good. It reports whether any is left, and how long the broker
// asked to wait.
func (b *Batcher) answerEnded(w *batchWorker, batch []*pendingSend, last bool) (wait time.Duration, again bool) {
	var failed map[string]bool // sessions with a message that failed for good
	var done []*pendingSend
	for _, p := range batch {
		o := p.out
		if o.answered {
			continue
		}
		err := o.result.Err
		behind := errors.Is(err, ErrNotSent) && !failed[p.m.SessionID]
		if !last && b.ctx.Err() == nil && o.m != nil && (b.repeatable(o) || behind) {
			again = true
			var e *Error
			if errors.As(err, &e) {
				wait = max(wait, e.RetryAfter)
			}
			continue
		}
		if err != nil && b.ctx.Err() != nil {
			o.result.Err = wrap("send", b.s.queue, driver.ErrClosed)
		}
		o.answered = true
		done = append(done, p)
		if err != nil && p.m.SessionID != "" {
			if failed == nil {
				failed = make(map[string]bool)
			}
			failed[p.m.SessionID] = true
		}
	}
	var behind []*pendingSend
	for _, p := range done {
		p.out.conclude(b.s.queue)
		if p.out.result.Err != nil {
			behind = append(behind, b.withdraw(w, p.m.SessionID, failed)...)
		}
		b.answer(p, p.out.result)
	}
	b.answerAll(behind, wrap("send", b.s.queue, ErrNotSent))
	return wait, again
}

// fail answers what is left of a batch, and what waits behind it in its sessions.
func (b *Batcher) fail(w *batchWorker, batch []*pendingSend, err error) {
	failed := make(map[string]bool)
	var left, behind []*pendingSend
	for _, p := range batch {
		if p.out == nil || !p.out.answered {
			failed[p.m.SessionID] = true
			left = append(left, p)
		}
	}
	for i, p := range left {
		behind = append(behind, b.withdraw(w, p.m.SessionID, failed)...)
		b.answerAll(left[i:i+1], err)
	}
	b.answerAll(behind, wrap("send", b.s.queue, ErrNotSent))
}

// withdraw takes the waiting messages of a session in failed from w, and the session
// out of failed. It is called right before the first failure of the session is answered:
// what is accepted until then was accepted by a caller that does not know of the failure,
// and what is accepted later by one that may repair it.
func (b *Batcher) withdraw(w *batchWorker, session string, failed map[string]bool) (out []*pendingSend) {
	if session == "" || !failed[session] {
		return nil
	}
	delete(failed, session)
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := w.waiting[:0]
	for _, p := range w.waiting {
		if session != p.m.SessionID {
			kept = append(kept, p)
		} else {
			out = append(out, p)
		}
	}
	clear(w.waiting[len(kept):])
	w.waiting = kept
	return out
}

// answerAll answers messages that were not answered before.
func (b *Batcher) answerAll(batch []*pendingSend, err error) {
	if b.ctx.Err() != nil {
		err = wrap("send", b.s.queue, driver.ErrClosed)
	}
	for _, p := range batch {
		r := SendResult{MessageID: p.m.ID, Err: err}
		if p.out != nil {
			p.out.result.Err = err
			p.out.conclude(b.s.queue)
			r = p.out.result
		}
		b.answer(p, r)
	}
}

func (b *Batcher) answer(p *pendingSend, r SendResult) {
	p.done(r)
	<-b.pendingTokens
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pending--; b.pending == 0 && b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
}
