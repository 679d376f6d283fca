package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/accounting"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// accountTimeout bounds one look. A million streams take a store in memory a few seconds.
const accountTimeout = 2 * time.Minute

// accountant looks at the streams of one group for its receivers in one Client, and
// reports the messages that are missing. Fetching starts a look if one is due, on a
// goroutine of its own so that no message waits for it; there is one look at a time. It
// ends by itself, after accountTimeout at the latest, or when the last receiver is
// closed.
type accountant struct {
	store replay.Store
	group string
	watch *storeWatch

	mu        sync.Mutex // guards what follows; never held across a call
	receivers []*Receiver
	due       time.Time          // of the next look; zero means now
	cancel    context.CancelFunc // ends the look that runs; nil if none does
	done      chan struct{}      // closed at the end of that look

	// Of the look that runs.
	failed      bool                         // the last look failed
	implausible map[accounting.StreamID]bool // that were reported
	// unanswered was entered into the store by a call without an answer, perhaps: then no
	// receiver has reported it. Nil if there is none.
	unanswered *accounting.Report
}

// account joins r to the accountant of its group.
func (c *Client) account(r *Receiver) *accountant {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.accountants[r.options.Group]
	if a == nil {
		a = &accountant{store: r.store, group: r.options.Group, watch: r.watch}
		if c.accountants == nil {
			c.accountants = make(map[string]*accountant)
		}
		c.accountants[a.group] = a
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.receivers = append(a.receivers, r)
	return a
}

// unaccount takes r out of its accountant. If r was the last of its group it waits for
// the look that runs to end, or for ctx.
func (c *Client) unaccount(ctx context.Context, r *Receiver) {
	c.mu.Lock()
	looking := r.accountant.leave(r)
	if a := r.accountant; a.empty() && c.accountants[a.group] == a {
		delete(c.accountants, a.group)
	}
	c.mu.Unlock()
	if looking == nil {
		return
	}
	select {
	case <-looking:
	case <-ctx.Done():
	}
}

// leave removes r. If r was the last it ends the look that runs, and returns what is
// closed when that has ended; nil if none runs.
func (a *accountant) leave(r *Receiver) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.Index(a.receivers, r)
	if i < 0 {
		return nil
	}
	if r == a.reporter() {
		a.due = time.Time{} // the next one takes over at once
	}
	a.receivers = slices.Delete(a.receivers, i, i+1)
	if len(a.receivers) > 0 || a.cancel == nil {
		return nil
	}
	a.cancel()
	return a.done
}

func (a *accountant) empty() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.receivers) == 0
}

// reporter is the receiver whose options apply and in whose name events come: the first
// that takes part in the accounting, else the first; nil if there is none. The caller
// holds mu.
func (a *accountant) reporter() *Receiver {
	if i := slices.IndexFunc(a.receivers, func(r *Receiver) bool { return !r.options.NoAccounting }); i >= 0 {
		return a.receivers[i]
	}
	if len(a.receivers) == 0 {
		return nil
	}
	return a.receivers[0]
}

// start starts a look if one is due and none runs. Receivers call it when they fetch.
func (a *accountant) start(now time.Time) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.reporter()
	if r == nil || a.cancel != nil || now.Before(a.due) {
		return
	}
	var ctx context.Context
	ctx, a.cancel = context.WithTimeout(context.Background(), accountTimeout)
	a.done = make(chan struct{})
	go a.run(ctx, r, a.done)
}

// run looks once, and settles when the next look is due.
func (a *accountant) run(ctx context.Context, r *Receiver, done chan<- struct{}) {
	defer close(done)
	begun := time.Now()
	next, err := a.look(ctx, r)
	if err != nil && !a.failed && ctx.Err() == nil {
		r.log.LogAttrs(ctx, slog.LevelWarn, "Missing messages are not looked for: the replay store does not answer",
			slog.String("queue", r.queue), slog.String("error", err.Error()))
	}
	a.failed = err != nil
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancel()
	a.cancel = nil
	now := time.Now()
	a.due = now.Add(accounting.Pause(next, now, now.Sub(begun), r.options.MissingAfter))
}

// look makes the account of now, reports what became due, and returns when the next is.
func (a *accountant) look(ctx context.Context, r *Receiver) (next time.Time, err error) {
	var sum accounting.Account
	var entered []replay.Range // of unanswered
	if !r.options.NoAccounting {
		now := time.Now()
		limits := accounting.LimitsOf(r.options.MissingAfter, r.cfg.MaxMessageAge, r.cfg.MaxClockSkew)
		for s, err := range a.store.Streams(ctx, a.group) {
			if err != nil {
				return time.Time{}, fmt.Errorf("%w: %w", ErrReplayStore, err)
			}
			sum.Add(&s, now, limits)
			if a.unanswered != nil {
				entered = append(entered, a.unanswered.Entered(&s)...)
			}
		}
	}
	before := a.watch.seen()
	stats, err := a.store.Stats(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", ErrReplayStore, err)
	}
	_ = a.watch.see(before, stats.Stamp) // it reports a loss, which stops receiving and not this
	if !stats.Shared {
		r.client.tellOfStore(ctx)
	}
	if a.unanswered != nil {
		a.tell(ctx, r, a.unanswered, entered, stats.Shared) // twice rather than never
		a.unanswered = nil
	}
	for i := range sum.Reports {
		if err := a.report(ctx, r, &sum.Reports[i], stats.Shared); err != nil {
			return time.Time{}, err
		}
	}
	a.reportImplausible(ctx, r, sum.Implausible)
	r.obs.Accounted(ctx, r.obs.Source, observe.Accounted{Late: sum.Late, Missing: sum.Missing, Full: stats.Full(), Accounting: !r.options.NoAccounting})
	return sum.Next, nil
}

// report enters what became due into the store, and reports what no other receiver has.
func (a *accountant) report(ctx context.Context, r *Receiver, due *accounting.Report, shared bool) error {
	notes := due.Notes()
	noted, err := a.store.Note(ctx, a.group, notes)
	if err == nil && len(noted) != len(notes) {
		err = errors.New("it returned another number of results")
	}
	if err != nil {
		a.unanswered = due
		return fmt.Errorf("%w: %w", ErrReplayStore, err)
	}
	fresh := due.Ranges[:0]
	for i, v := range due.Ranges {
		if noted[i].Fresh > 0 {
			fresh = append(fresh, v)
		}
	}
	a.tell(ctx, r, due, fresh, shared)
	return nil
}

// tell reports a part of what became due.
func (a *accountant) tell(ctx context.Context, r *Receiver, due *accounting.Report, fresh []replay.Range, shared bool) {
	if len(fresh) == 0 {
		return
	}
	n := uint64(0)
	for _, v := range fresh {
		n += v.Last - v.First + 1
	}
	attrs := []slog.Attr{
		slog.String("queue", r.queue), slog.String("sender", due.Sender), slog.String("stream", fmt.Sprintf("%x", due.Stream)),
		slog.Uint64("messages", n), slog.String("ranges", rangesText(fresh)),
	}
	if !shared {
		attrs = append(attrs, slog.String("note", "the replay store serves one process: what other processes received counts as missing, unless NoAccounting is set"))
	}
	if due.Kind == replay.NoteMissing {
		r.obs.Missing(ctx, r.obs.Source, observe.Missing{Sender: due.Sender, Stream: due.Stream, Ranges: fresh})
		r.log.LogAttrs(ctx, slog.LevelError, "Messages are MISSING: the broker confirmed them and did not deliver them", attrs...)
		return
	}
	r.obs.Late(ctx, r.obs.Source, observe.Late{Sender: due.Sender, Stream: due.Stream, Ranges: fresh})
	r.log.LogAttrs(ctx, slog.LevelWarn, "Messages are late: their sender knows that the broker has them", attrs...)
}

// maxLoggedRanges bounds the ranges in a log line; the Observer gets all of them.
const maxLoggedRanges = 20

// rangesText is ranges in words: "3-5, 9".
func rangesText(all []replay.Range) string {
	var b strings.Builder
	for i, v := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == maxLoggedRanges {
			fmt.Fprintf(&b, "and %d more ranges", len(all)-i)
			break
		}
		fmt.Fprint(&b, v.First)
		if v.Last > v.First {
			fmt.Fprintf(&b, "-%d", v.Last)
		}
	}
	return b.String()
}

// reportImplausible reports streams that cannot be accounted for, once for each process
// and stream: the store keeps no note of a stream of which it lists nothing.
func (a *accountant) reportImplausible(ctx context.Context, r *Receiver, all []accounting.StreamID) {
	now := make(map[accounting.StreamID]bool, len(all))
	for _, id := range all {
		now[id] = true
		if a.implausible[id] {
			continue
		}
		r.obs.CryptoError(ctx, r.obs.Source, observe.CryptoError{Reason: driver.ReasonAccounting})
		r.log.LogAttrs(ctx, slog.LevelError, "Accounting implausible: a sender counts messages that cannot all be missing, and none of them is reported",
			slog.String("queue", r.queue), slog.String("sender", id.Sender), slog.String("stream", fmt.Sprintf("%x", id.Stream)))
	}
	a.implausible = now
}
