package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// dispatch sends what prepare left without error, in as few calls of send as the limits
// allow. send makes one call to the broker, or repeats it. After a message that failed,
// the later ones of its session are not sent.
func (s *Sender) dispatch(ctx context.Context, out []outgoing, send func(context.Context, []*outgoing)) {
	d := dispatcher{s: s, limit: max(1, s.caps.MaxBatch)}
	d.send = func(batch []*outgoing) { send(ctx, batch) }
	d.batch = make([]*outgoing, 0, min(d.limit, len(out)))
	if s.caps.OrderedBatch {
		for i := range out {
			d.add(&out[i])
		}
	} else {
		d.inCall = make(map[string]bool)
		for _, o := range rounds(out) {
			d.add(o)
		}
	}
	d.flush()
}

// rounds puts the first message of each session before the second ones, and so on, so
// that calls with one message of a session are full.
func rounds(out []outgoing) []*outgoing {
	var round [][]*outgoing
	of := make(map[string]int) // how many messages of the session came so far
	for i := range out {
		o := &out[i]
		n := 0
		if o.session != "" {
			n = of[o.session]
			of[o.session]++
		}
		if n == len(round) {
			round = append(round, nil)
		}
		round[n] = append(round[n], o)
	}
	return slices.Concat(round...)
}

// dispatcher fills calls to the broker. It is for one goroutine.
type dispatcher struct {
	s     *Sender
	send  func([]*outgoing)
	limit int // messages in a call

	batch  []*outgoing
	bytes  int
	failed map[string]bool // sessions with a message that failed
	inCall map[string]bool // sessions in the batch; nil if it may hold several of one
}

// add takes one message into the next call, or sends what was taken before.
func (d *dispatcher) add(o *outgoing) {
	if o.answered || o.result.Err != nil {
		d.note(o)
		return
	}
	tooLarge := len(d.batch) > 0 && d.bytes+o.size > d.s.caps.MaxBatchBytes
	if len(d.batch) == d.limit || d.inCall[o.session] || tooLarge {
		d.flush()
	}
	if d.failed[o.session] {
		o.result.Err = wrap("send", d.s.queue, ErrNotSent)
		return
	}
	if d.inCall != nil && o.session != "" {
		d.inCall[o.session] = true
	}
	d.batch = append(d.batch, o)
	d.bytes += o.size
}

// flush sends the batch.
func (d *dispatcher) flush() {
	if len(d.batch) == 0 {
		return
	}
	d.send(d.batch)
	for _, o := range d.batch {
		d.note(o)
	}
	d.batch, d.bytes = d.batch[:0], 0
	clear(d.inCall)
}

// note keeps in mind that a message of a session failed.
func (d *dispatcher) note(o *outgoing) {
	if o.result.Err == nil || o.session == "" {
		return
	}
	if d.failed == nil {
		d.failed = make(map[string]bool)
	}
	d.failed[o.session] = true
}

// How a call without an answer is repeated: after waits of up to 100 ms, 200 ms and so on,
// so that it meets a broker that restarts, and for no longer than a caller without a
// deadline wants to wait.
const (
	maxRepeats   = 5
	repeatWindow = 10 * time.Second
)

var repeatDelay = backoff.Exponential{First: 100 * time.Millisecond, Max: 2 * time.Second}

// sendRepeating is sendBatch, and repeats with the same bytes what the broker did not
// answer, if a repeat does no harm. No repeat begins after the deadline.
func (s *Sender) sendRepeating(ctx context.Context, batch []*outgoing, deadline time.Time) {
	s.sendBatch(ctx, batch)
	for attempt := 1; attempt <= maxRepeats && ctx.Err() == nil; attempt++ {
		again := s.repeats(ctx, batch)
		if len(again) == 0 {
			return
		}
		next := time.Now().Add(repeatDelay.Delay(attempt))
		if next.After(deadline) || !backoff.Sleep(ctx, time.Until(next)) {
			return
		}
		s.sendBatch(ctx, again)
	}
}

// repeats are the messages of a call that should be sent once more: those without an
// answer, and those behind them in their sessions.
func (s *Sender) repeats(ctx context.Context, batch []*outgoing) (again []*outgoing) {
	if ctx.Err() != nil {
		return nil
	}
	var over map[string]bool // sessions with a message that is not sent again
	for _, o := range batch {
		err := o.result.Err
		switch {
		case err == nil:
		case o.state == unknown && unanswered(err) && s.repeatable(o), errors.Is(err, ErrNotSent) && !over[o.session]:
			again = append(again, o)
		default:
			if over == nil {
				over = make(map[string]bool)
			}
			over[o.session] = true
		}
	}
	return again
}

// repeatable reports whether a second copy of the message does no harm: a receiver knows
// a sealed one by its number, and a broker with Dedup drops the other.
func (s *Sender) repeatable(o *outgoing) bool {
	if errors.Is(o.result.Err, ErrClosed) {
		return false // no later call is answered
	}
	return o.m.Sealed || s.caps.Dedup != driver.None
}

// unanswered reports whether the broker may hold a message although sending it failed.
func unanswered(err error) bool {
	switch driver.KindOf(err) {
	case driver.Unavailable, driver.Closed:
		return true
	case driver.Other: // an error of the context, too
		return !errors.Is(err, errors.ErrUnsupported)
	}
	return false // the broker refused it
}

// unconfirmed is err of a message that the broker may hold, also if the context ended.
func unconfirmed(queue string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return wrap("send", queue, fmt.Errorf("%w: %w", ErrUnconfirmed, err))
}

// sendBatch makes one call to the broker.
func (s *Sender) sendBatch(ctx context.Context, batch []*outgoing) {
	if err := ctx.Err(); err != nil {
		for _, o := range batch {
			o.result.Err = err
		}
		return
	}
	messages := batch[0].alone[:]
	if len(batch) > 1 {
		messages = make([]*driver.Message, len(batch))
	}
	for i, o := range batch {
		if s.cfg.Enabled && !o.m.Sealed {
			panic("queue: a message that was not sealed reached the driver") // unreachable: protect
		}
		messages[i] = o.m
	}
	op := observe.Operation{Kind: observe.Send, Count: len(batch), Encrypted: s.cfg.Enabled}
	if len(batch) == 1 {
		op.MessageID, op.SessionID, op.KeyID = batch[0].m.ID, batch[0].m.SessionID, batch[0].result.KeyID
	}
	for i, o := range batch {
		if o.carries {
			if op.Links == nil {
				op.Links = make([]map[string]string, len(batch))
			}
			op.Links[i] = o.m.Trace
		}
	}
	ctx, end := s.obs.Start(ctx, op)
	if s.obs.Traces() {
		// The messages carry the span of the send, not the caller's.
		if trace := s.obs.TraceOf(ctx); trace != nil {
			s.carryAll(batch, trace)
		}
	}
	results := s.q.Send(ctx, messages)
	var first error
	sent := 0
	for i, o := range batch {
		var err error
		if i < len(results) {
			o.result.BrokerID, err = results[i].BrokerID, results[i].Err
		} else {
			err = errors.New("the driver returned too few results")
		}
		o.tried(wrap("send", s.queue, err))
		if o.result.Err != nil {
			if first == nil {
				first = o.result.Err
			}
			continue
		}
		sent++
		s.obs.Sent(ctx, s.obs.Source, observe.Sent{Encrypted: o.result.Encrypted, KeyID: o.result.KeyID, Bytes: len(o.m.Body)})
		s.logSent(ctx, o)
	}
	end(observe.Result{Err: first, Count: sent})
}

// carry gives a prepared message a trace context, and reports whether there was room: a
// message does not fail for its trace.
func (s *Sender) carry(o *outgoing, trace map[string]string) bool {
	if trace == nil {
		return false
	}
	before := o.m.Trace
	o.m.Trace = trace
	size := o.size
	if s.measure(o) != nil {
		o.m.Trace, o.size = before, size
		return false
	}
	return true
}

// carryAll gives the messages of a batch, which was filled without it, a trace
// context, if there is room.
func (s *Sender) carryAll(batch []*outgoing, trace map[string]string) {
	before := make([]map[string]string, len(batch))
	size := 0
	for i, o := range batch {
		before[i] = o.m.Trace
		if !o.carries {
			o.m.Trace = trace
		}
		if s.caps.MaxBatchBytes > 0 {
			size += s.q.Size(o.m)
		}
	}
	if size > s.caps.MaxBatchBytes {
		for i, o := range batch {
			o.m.Trace = before[i]
		}
	}
}

func (s *Sender) logSent(ctx context.Context, o *outgoing) {
	if o.result.Encrypted {
		if s.log.Enabled(ctx, slog.LevelInfo) {
			s.log.LogAttrs(ctx, slog.LevelInfo, "Message sent with encryption",
				slog.String("queue", s.queue), slog.String("message_id", o.m.ID),
				slog.Bool("encrypted", true), slog.String("key_id", string(o.result.KeyID)))
		}
		return
	}
	s.log.LogAttrs(ctx, slog.LevelWarn, "Message sent WITHOUT encryption",
		slog.String("queue", s.queue), slog.String("message_id", o.m.ID), slog.Bool("encrypted", false))
}

// parallelBytes is the size in bytes from which on several goroutines seal or open a
// batch: below it, starting them costs more than it saves.
const parallelBytes = 64 << 10

// parallel calls f for 0 to n-1, from several goroutines if that pays, and returns when all
// calls have. If one panics or ends its goroutine, parallel panics when the others have
// returned.
func parallel(n, bytes int, f func(int)) {
	if bytes < parallelBytes {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var panicked atomic.Pointer[any] // what the last one panicked with
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			over := false
			defer func() {
				switch p := recover(); {
				case p != nil:
					panicked.Store(&p)
				case !over:
					var left any = "queue: a CryptoProvider ended its goroutine"
					panicked.Store(&left)
				}
			}()
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					over = true
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
	if p := panicked.Load(); p != nil {
		panic(*p)
	}
}
