package deadletter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// RedriveOptions say which letters go back to their queue, and how.
type RedriveOptions struct {
	// Filter selects them. Nil means all.
	Filter *Filter

	// Reseal opens each message and seals it anew, under the current key and with the
	// time of now, so that receivers take it as fresh. Otherwise the stored bytes go
	// back as they are, and receivers judge them by their age.
	//
	// It stays the same message: receivers handle it once, however often it is redriven.
	// A message is resealed only if it opens, was not handled, and the replay store knows
	// it or can prove that it is unused. Otherwise a broker could have an old message
	// made new by putting it among the dead letters. A message that is not due yet is not
	// resealed: it would be handled now, and once more when it is due. Plaintext is
	// never resealed.
	Reseal bool

	// AcceptReplayRisk also reseals messages that the replay store no longer
	// remembers, and every message if replays are not tracked. Set it only if you know
	// that the messages were not handled before; each is logged.
	AcceptReplayRisk bool

	// TTL replaces a message's own expiry when it is resealed. 0 keeps it, and refuses
	// a message that is past it. It needs Reseal.
	TTL time.Duration

	// Rate is how many messages a second are sent at most. 0 means no limit.
	Rate float64

	// DryRun reports what Redrive would do, and changes nothing. It does not lock the
	// letters if the broker can peek. On any other broker it receives them and gives them
	// back: other readers miss them meanwhile, and if the broker cannot release a message
	// uncounted, it costs each letter a delivery.
	DryRun bool

	// Progress is called after each batch, from the goroutine of Redrive. Nil means no
	// callback.
	Progress func(RedriveReport)
}

// RedriveReport counts what a Redrive did so far.
type RedriveReport struct {
	Matched  int // selected by the filter, and looked at
	Redriven int // sent and removed; with DryRun, those that would be
	Resealed int // of Redriven
	Refused  int // left among the dead letters, see Refusals
	Failed   int // could not be sent, or not be removed after sending
	// Refusals counts by reason: a code of the receive pipeline, or RefusedPlaintext,
	// RefusedUnknown, RefusedExpired.
	Refusals map[string]int
	// FirstError is the error of the first message in Failed.
	FirstError error
}

// Reasons to refuse a letter, beside the codes of the receive pipeline.
const (
	RefusedPlaintext = "plaintext"               // it is not sealed, and nothing says who sent it
	RefusedUnknown   = "unknown_to_replay_store" // it may have been handled and forgotten
	RefusedExpired   = "expired"                 // past its own expiry
)

func (r *RedriveReport) fail(err error) {
	r.Failed++
	if r.FirstError == nil {
		r.FirstError = err
	}
}

// outgoing is a dead letter and what goes back for it.
type outgoing struct {
	m    *driver.Delivery
	back *driver.Message
}

// redrive is one run of Redrive.
type redrive struct {
	q      *Queue
	o      RedriveOptions
	r      *reader
	next   time.Time // when the next message may be sent, with a Rate
	report RedriveReport
}

// Redrive sends letters back to their queue. Each is removed only after the queue has
// confirmed the copy: a crash in between may leave both, never none. The error is of the
// redrive as a whole: it stops at the first failure of the dead-letter queue itself, and
// goes on past messages that cannot be sent. It is over those letters that were there when
// it began. If it could not reach all of them, because other receivers hold some, its error
// is an [IncompleteError], and the report says what was done.
func (q *Queue) Redrive(ctx context.Context, o *RedriveOptions) (RedriveReport, error) {
	const op = "redrive"
	run := redrive{q: q, report: RedriveReport{Refusals: map[string]int{}}}
	if o != nil {
		run.o = *o
	}
	if err := run.check(ctx); err != nil {
		return run.report, queue.NewError(op, q.name, err)
	}
	if run.o.DryRun && q.dead.Capabilities().Peek != driver.None {
		err := run.look(ctx)
		return run.report, queue.NewError(op, q.name, err)
	}
	r, err := q.reader(ctx)
	if err != nil {
		return run.report, queue.NewError(op, q.name, err)
	}
	run.r = r
	defer run.r.release(ctx)
	if run.o.Rate > 0 {
		// No more than go within a second: their locks must not run out first.
		run.r.batch = int(min(max(run.o.Rate, 1), receiveBatch))
	}
	for run.pace(ctx) {
		batch, err := run.r.next(ctx)
		if len(batch) == 0 { // after an error, too
			return run.report, queue.NewError(op, q.name, err)
		}
		if err := run.batch(ctx, batch); err != nil {
			return run.report, queue.NewError(op, q.name, err)
		}
		run.tell()
		if limit := run.o.Filter.limit(); limit > 0 && run.report.Matched >= limit {
			return run.report, nil
		}
	}
	return run.report, queue.NewError(op, q.name, ctx.Err())
}

// check refuses options that contradict each other.
func (x *redrive) check(ctx context.Context) error {
	if err := checkCall(ctx, x.o.Filter); err != nil {
		return err
	}
	invalid := ""
	switch o := &x.o; {
	case !(o.Rate >= 0) || o.TTL < 0: // NaN included
		invalid = "RedriveOptions: Rate and TTL must not be negative"
	case o.Reseal && x.q.sealer == nil:
		invalid = "a redrive with Reseal needs the queue's keys"
	case o.Reseal && x.q.store == nil && !o.AcceptReplayRisk:
		invalid = "a redrive with Reseal needs a replay store, which tells what was handled before; set Crypto.TrackReplays, or AcceptReplayRisk if you know that nothing was"
	case o.TTL > 0 && !o.Reseal:
		invalid = "RedriveOptions.TTL needs Reseal"
	}
	if invalid != "" {
		return fmt.Errorf("%w: %s", queue.ErrInvalidOptions, invalid)
	}
	return nil
}

// look is a dry run over letters that are peeked, which holds none of them.
func (x *redrive) look(ctx context.Context) error {
	var stopped error
	err := x.q.read(ctx, func(m *driver.Delivery) bool {
		if stopped = x.batch(ctx, []*driver.Delivery{m}); stopped != nil {
			return false
		}
		limit := x.o.Filter.limit()
		return limit == 0 || x.report.Matched < limit
	})
	if stopped != nil {
		return stopped
	}
	x.tell()
	return err
}

// tell calls Progress.
func (x *redrive) tell() {
	if x.o.Progress == nil {
		return
	}
	told := x.report
	told.Refusals = maps.Clone(told.Refusals) // Progress may keep it
	x.o.Progress(told)
}

// batch redrives what the filter selects of a batch. Its error is ctx's.
func (x *redrive) batch(ctx context.Context, batch []*driver.Delivery) error {
	var out []outgoing
	for i, m := range batch {
		limit := x.o.Filter.limit()
		if !x.o.Filter.match(m) || limit > 0 && x.report.Matched >= limit {
			x.r.keep(m)
			continue
		}
		x.report.Matched++
		back, refused, err := x.prepare(ctx, m)
		if ctx.Err() != nil {
			x.keep(out)
			x.r.keep(batch[i:]...) // what was not looked at, too
			return ctx.Err()
		}
		switch {
		case err != nil:
			x.report.fail(queue.NewError("redrive", x.q.name, err))
			x.r.keep(m)
		case refused != "":
			x.report.Refused++
			x.report.Refusals[refused]++
			x.r.keep(m)
		case x.o.DryRun:
			x.report.Redriven++
			x.r.keep(m)
		default:
			out = append(out, outgoing{m, back})
		}
	}
	return x.sendAll(ctx, out)
}

// keep gives back what was prepared and not sent.
func (x *redrive) keep(out []outgoing) {
	for _, l := range out {
		x.r.keep(l.m)
	}
}

// sendAll sends in as few calls as the limits and the rate allow.
func (x *redrive) sendAll(ctx context.Context, out []outgoing) error {
	for len(out) > 0 {
		if !x.pace(ctx) {
			x.keep(out)
			return ctx.Err()
		}
		n := x.fitting(out)
		x.send(ctx, out[:n])
		out = out[n:]
	}
	return nil
}

// maxInterval is for rates so small that the time between two messages does not fit a
// time.Duration.
const maxInterval = 50 * 365 * 24 * time.Hour

// pace waits until the next message may be sent, and reports false if ctx ended first.
// Meanwhile it renews the locks of the letters that the read has passed over.
func (x *redrive) pace(ctx context.Context) bool {
	for lock := x.q.dead.Capabilities().Lock; ; {
		left := time.Until(x.next)
		if lock == 0 || left <= lock/keptRenewals {
			return backoff.Sleep(ctx, left)
		}
		if !backoff.Sleep(ctx, lock/keptRenewals) {
			return false
		}
		x.r.kept.renew(ctx)
	}
}

// fitting is how many of out one call to the broker takes, at least one.
func (x *redrive) fitting(out []outgoing) int {
	if x.o.Rate > 0 {
		interval := maxInterval
		if d := float64(time.Second) / x.o.Rate; d < float64(maxInterval) {
			interval = time.Duration(d)
		}
		x.next = time.Now().Add(interval)
		return 1
	}
	caps := x.q.main.Capabilities()
	n, size := 0, 0
	for _, l := range out[:min(len(out), max(1, caps.MaxBatch))] {
		if size += x.q.main.Size(l.back); n > 0 && caps.MaxBatchBytes > 0 && size > caps.MaxBatchBytes {
			break
		}
		n++
	}
	return n
}

// send sends, and removes what the queue has confirmed.
func (x *redrive) send(ctx context.Context, out []outgoing) {
	q := x.q
	op := observe.Operation{Kind: observe.Redrive, Count: len(out)}
	messages := make([]*driver.Message, len(out))
	for i, l := range out {
		messages[i] = l.back
		if q.obs.Traces() {
			op.Links = append(op.Links, l.back.Trace)
		}
	}
	ctx, end := q.obs.Start(ctx, op)
	results := q.main.Send(ctx, messages)
	var sent []driver.Settlement
	var first error
	for i, l := range out {
		err := errFewResults
		if i < len(results) {
			err = results[i].Err
		}
		if err == nil {
			sent = append(sent, driver.Settlement{Delivery: l.m, Kind: driver.Complete})
			continue
		}
		if first == nil {
			first = err
		}
		x.report.fail(queue.NewError("redrive", q.name, err))
		x.r.keep(l.m)
	}
	x.remove(ctx, sent)
	end(observe.Result{Err: first, Count: len(sent)})
}

// remove removes letters whose copies are confirmed, also if the caller has left.
func (x *redrive) remove(ctx context.Context, sent []driver.Settlement) {
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	for _, err := range x.q.settleDead(sctx, sent) {
		if err != nil {
			x.report.fail(queue.NewError("redrive", x.q.name, fmt.Errorf("sent, and not removed from the dead letters: %w", err)))
			continue
		}
		x.report.Redriven++
		if x.o.Reseal {
			x.report.Resealed++
		}
		x.q.obs.Redriven(ctx, x.q.obs.Source, observe.Redriven{Resealed: x.o.Reseal})
	}
}

// prepare makes what goes back for a letter. refused is the reason to leave it.
func (x *redrive) prepare(ctx context.Context, m *driver.Delivery) (back *driver.Message, refused string, err error) {
	c := m.Message
	back = &c
	back.NotBefore = time.Time{}
	back.TTL = 0
	sum := sha256.Sum256([]byte(m.BrokerID))
	// The same when a crash makes a redrive send again; not the message's own, by which
	// the broker would drop it as a repeat.
	back.DedupID = "redrive:" + hex.EncodeToString(sum[:])
	if !x.o.Reseal {
		return back, "", nil
	}
	refused, err = x.reseal(ctx, m, back)
	return back, refused, err
}
