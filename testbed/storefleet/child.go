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

	"github.com/queue-runtime/queue/replay"
)

// The environment of a child.
const (
	targetVariable    = "STOREFLEET_TARGET"
	receiversVariable = "STOREFLEET_RECEIVERS"
	leaseVariable     = "STOREFLEET_LEASE"
)

// The traffic. The broker of these tests delivers messages again and again: those of the
// last 400 ms, one for each millisecond, of 4 senders.
const (
	batchSize = 32
	recent    = 400
	senders   = 4
)

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
	receivers := 0
	if _, err := fmt.Sscan(os.Getenv(receiversVariable), &receivers); err != nil {
		return err
	}
	lease, err := time.ParseDuration(os.Getenv(leaseVariable))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
		cancel()
	}()
	var s replay.Store
	for s == nil {
		// The store may be away just now.
		if s, err = open(ctx, target); err != nil && wait(ctx, 20*time.Millisecond) != nil {
			return err
		}
	}
	events := &reporter{out: os.Stdout}
	errs := make(chan error, receivers)
	for range receivers {
		r := &receiver{store: s, lease: lease, events: events}
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
	store  replay.Store
	lease  time.Duration
	events *reporter
	stamp  replay.Stamp
	report strings.Builder
}

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
	batch := deliver(r.lease)
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
			r.event("granted", batch[i].ID.Sequence, began, c.Stamp)
			kind := replay.Consumed
			if rand.IntN(10) == 0 { //nolint:gosec // G404: traffic, not a secret
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
			r.event("completed", f[i].ID.Sequence, ended, e.Stamp)
		case errors.Is(e.Err, replay.ErrClaimLost), errors.Is(e.Err, replay.ErrHandled):
			r.event("lost", f[i].ID.Sequence, ended, e.Stamp)
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
		r.event("failed", 0, time.Now(), r.stamp)
		if err := errors.Join(r.flush(), wait(ctx, 20*time.Millisecond)); err != nil {
			return out, err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// see reports a loss of memory.
func (r *receiver) see(s replay.Stamp) {
	if old := r.stamp; old != (replay.Stamp{}) && (s.ID != old.ID || s.Change < old.Change) {
		r.event("loss", 0, time.Now(), s)
	}
	r.stamp = s
}

// event adds a line. Its end tells a whole one.
func (r *receiver) event(what string, sequence uint64, at time.Time, s replay.Stamp) {
	fmt.Fprintf(&r.report, "%s %d %d %x .\n", what, sequence, at.UnixNano(), s.ID)
}

func (r *receiver) flush() error {
	lines := r.report.String()
	r.report.Reset()
	return r.events.write(lines)
}

// deliver returns a batch of messages. Which the broker delivers moves on with time, so
// that all processes meet on the same ones.
func deliver(lease time.Duration) (batch []replay.Request) {
	now := time.Now()
	for range batchSize {
		batch = append(batch, Request(now.Add(-time.Duration(rand.IntN(recent))*time.Millisecond), lease)) //nolint:gosec // G404
	}
	return batch
}

// Request asks for the message that was sealed in a millisecond.
func Request(sealed time.Time, lease time.Duration) replay.Request {
	sealed = sealed.Truncate(time.Millisecond)
	n := uint64(sealed.UnixMilli()) //nolint:gosec // G115: after 1970
	r := replay.Request{
		ID: replay.Identity{Sender: fmt.Sprint("sender-", n%senders), Sequence: n % 1_000_000_000}, Token: replay.NewToken(),
		SealedAt: sealed, FreshUntil: sealed.Add(time.Hour), Now: time.Now(),
		RetryWindow: time.Hour, Lease: lease, MaxMessageAge: time.Hour, MaxClockSkew: time.Minute,
	}
	binary.BigEndian.PutUint64(r.ID.Stream[:], 1_800_000_000_000<<16)
	binary.BigEndian.PutUint64(r.Tag[:], n)
	return r
}
