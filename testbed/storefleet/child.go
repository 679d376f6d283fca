package storefleet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/replay"
)

// The environment of a child.
const (
	targetVariable    = "STOREFLEET_TARGET"
	receiversVariable = "STOREFLEET_RECEIVERS"
	leaseVariable     = "STOREFLEET_LEASE"
	sendersVariable   = "STOREFLEET_SENDERS"
	shareVariable     = "STOREFLEET_SHARE"
)

// batchSize is the number of messages that a receiver takes at once.
const batchSize = 32

// recent is how many messages a broker that repeats itself delivers: those of the last
// 400 ms, one for each millisecond.
const recent = 400

// group is the group of all receivers.
const group = "fleet"

// Main runs receivers until the process is killed, if [Run] has started it, and reports
// whether it did. open opens the store at a target of [Options].
func Main(open func(ctx context.Context, target string) (replay.Store, error)) bool {
	target := os.Getenv(targetVariable)
	if target == "" {
		return false
	}
	if err := child(target, open); err != nil {
		fmt.Fprintln(os.Stderr, "storefleet:", err)
		os.Exit(1)
	}
	return true
}

func child(target string, open func(ctx context.Context, target string) (replay.Store, error)) error {
	var receivers, first, all int
	var senders uint64
	_, err1 := fmt.Sscan(os.Getenv(receiversVariable), &receivers)
	_, err2 := fmt.Sscan(os.Getenv(sendersVariable), &senders)
	_, err3 := fmt.Sscan(os.Getenv(shareVariable), &first, &all)
	lease, err := time.ParseDuration(os.Getenv(leaseVariable))
	if err := errors.Join(err, err1, err2, err3); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
		cancel()
	}()
	s, err := open(ctx, target)
	events := &reporter{out: os.Stdout}
	for err != nil {
		// The store may be away just now.
		if e := errors.Join(events.write(fmt.Sprintf("why %.1000q\n", fmt.Errorf("open: %w", err))), wait(ctx, 20*time.Millisecond)); e != nil {
			return err
		}
		s, err = open(ctx, target)
	}
	errs := make(chan error, receivers)
	for i := range receivers {
		r := &receiver{store: s, lease: lease, events: events, senders: senders}
		if all > 0 {
			r.share = &share{next: uint64(first + i), step: uint64(all)} //nolint:gosec // G115: small
		}
		go func() { errs <- r.run(ctx) }()
	}
	for range receivers {
		if e := <-errs; e != nil && ctx.Err() == nil {
			return e
		}
	}
	return nil
}

// reporter writes whole lines.
type reporter struct {
	mu  sync.Mutex // guards out
	out io.Writer
}

func (r *reporter) write(lines string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := io.WriteString(r.out, lines)
	return err
}

// receiver handles batches. The times of its events bound the truth: a grant is as early
// as its call began, a completion as late as its answer came.
type receiver struct {
	store   replay.Store
	lease   time.Duration
	senders uint64
	share   *share // nil: the broker repeats itself
	events  *reporter
	stamp   replay.Stamp
	report  strings.Builder
}

// share is what one of several receivers gets of a broker that delivers each message
// once: every so many batches one.
type share struct{ next, step uint64 }

func (r *receiver) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := r.handle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// handle handles one batch.
func (r *receiver) handle(ctx context.Context) error {
	batch := r.deliver()
	began := time.Now()
	claims, err := again(ctx, r, func() ([]replay.Claim, error) { return r.store.Begin(ctx, group, batch) })
	if err != nil {
		return err
	}
	var f []replay.Finish
	for i, c := range claims {
		r.see(c.Stamp)
		switch {
		case c.Err == nil:
			r.event("granted", batch[i].ID, began, c.Stamp)
			kind := replay.Consumed
			if r.share == nil && rand.IntN(10) == 0 { //nolint:gosec // G404: traffic, not a secret
				kind = replay.Released
			}
			f = append(f, replay.Finish{ID: batch[i].ID, Token: batch[i].Token, Kind: kind})
		case errors.Is(c.Err, replay.ErrBusy), errors.Is(c.Err, replay.ErrDuplicate), errors.Is(c.Err, replay.ErrReused):
		default:
			return fmt.Errorf("begin: %w", c.Err)
		}
	}
	if len(f) == 0 {
		return r.flush()
	}
	ends, err := again(ctx, r, func() ([]replay.Finished, error) { return r.store.Finish(ctx, group, f) })
	if err != nil {
		return err
	}
	ended := time.Now()
	for i, e := range ends {
		r.see(e.Stamp)
		switch {
		case e.Err == nil && f[i].Kind == replay.Consumed:
			r.event("completed", f[i].ID, ended, e.Stamp)
		case errors.Is(e.Err, replay.ErrClaimLost), errors.Is(e.Err, replay.ErrHandled):
			r.event("lost", f[i].ID, ended, e.Stamp)
		case e.Err != nil:
			return fmt.Errorf("finish: %w", e.Err)
		}
	}
	return r.flush()
}

// again makes a call until it is answered. It reports failures.
func again[T any](ctx context.Context, r *receiver, call func() (T, error)) (T, error) {
	for {
		out, err := call()
		if err == nil {
			return out, nil
		}
		r.event("failed", replay.Identity{}, time.Now(), r.stamp)
		fmt.Fprintf(&r.report, "why %.1000q\n", err)
		if err := errors.Join(r.flush(), wait(ctx, 20*time.Millisecond)); err != nil {
			return out, err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	if !backoff.Sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// see reports a loss of memory.
func (r *receiver) see(s replay.Stamp) {
	if old := r.stamp; old != (replay.Stamp{}) && (s.ID != old.ID || s.Change < old.Change) {
		r.event("loss", replay.Identity{}, time.Now(), s)
	}
	r.stamp = s
}

// event adds a line. Its end tells a whole one.
func (r *receiver) event(what string, m replay.Identity, at time.Time, s replay.Stamp) {
	fmt.Fprintf(&r.report, "%s %s/%d %d %x .\n", what, m.Sender, m.Sequence, at.UnixNano(), s.ID)
}

func (r *receiver) flush() error {
	lines := r.report.String()
	r.report.Reset()
	return r.events.write(lines)
}

// deliver returns a batch of messages. Which a broker delivers that repeats itself moves
// on with time, so that all processes meet on the same ones.
func (r *receiver) deliver() (batch []replay.Request) {
	now := time.Now()
	for i := range uint64(batchSize) {
		n := uint64(now.UnixMilli()) - uint64(rand.IntN(recent)) //nolint:gosec // G115, G404: after 1970; traffic
		if r.share != nil {
			n = r.share.next*batchSize + i
		}
		batch = append(batch, r.request(n, now))
	}
	if r.share != nil {
		r.share.next += r.share.step
	}
	return batch
}

// request asks for the message of a number.
func (r *receiver) request(n uint64, now time.Time) replay.Request {
	q := replay.Request{
		ID: replay.Identity{Sender: fmt.Sprint("sender-", n%r.senders), Sequence: n/r.senders + 1}, Token: replay.NewToken(),
		SealedAt: now.Truncate(time.Second), FreshUntil: now.Add(time.Hour), Now: now,
		RetryWindow: time.Hour, Lease: r.lease, MaxMessageAge: time.Hour, MaxClockSkew: time.Minute,
	}
	binary.BigEndian.PutUint64(q.ID.Stream[:], 1_800_000_000_000<<16)
	binary.BigEndian.PutUint64(q.Tag[:], n)
	return q
}
