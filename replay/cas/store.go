package cas

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/replay"
)

// Defaults of [Options].
const (
	DefaultPageSpan       = replaystate.MaxSpan
	DefaultMaxTries       = 64
	DefaultParallel       = 16
	DefaultSweepInterval  = 5 * time.Minute
	DefaultChangeInterval = 10 * time.Second
)

// Options configure a [Store]. Nil and the zero value are the defaults; negative
// values are refused.
type Options struct {
	// Bounds says how much the store holds, and for how long.
	Bounds replay.Bounds
	// Prefix stands before every key, so that several stores can share a table.
	// At most 100 bytes of letters, digits, '-' and '_'.
	Prefix string
	// PageSpan is the number of sequences of a page, a multiple of 64 up to 1,024.
	// 0 means 1,024. A small page costs less to write, and a new one costs some
	// requests. The store keeps the number of its first Open, and refuses another.
	PageSpan int
	// MaxTries is how often a page is written before a call fails because other
	// receivers were always faster. 0 means 64.
	MaxTries int
	// Parallel is how many requests of a call are under way at once. 0 means 16.
	Parallel int
	// SweepInterval is how often this Store lists a group it works for, to fold
	// pages, drop old streams and count. 0 means 5 minutes.
	SweepInterval time.Duration
	// ChangeInterval is how often the change number grows at most. What a
	// restored backup lost is noticed if the number has grown twice since: if
	// the backup is older than two of them. A Store that raised the number since the
	// backup notices also if others have raised it as often again. 0 means 10 seconds.
	ChangeInterval time.Duration
}

// Store is a replay.Store over a Backend. It is safe for concurrent use, and owns a
// goroutine for each sweep and for each claim whose lease has ended, which end with Close.
type Store struct {
	replay.Store
	engine *engine
}

// Open makes a store over a backend. It reads the ID of the store there, and draws
// one if there is none. o may be nil. It fails for options that are out of bounds, for a
// PageSpan other than the one that the store has, and with the error of the backend.
func Open(ctx context.Context, b Backend, o *Options) (*Store, error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.MaxTries < 0 || opts.Parallel < 0 || opts.SweepInterval < 0 || opts.ChangeInterval < 0 {
		return nil, errors.New("cas: an option is negative: use numbers above zero, or 0 for the default")
	}
	for _, c := range []byte(opts.Prefix) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_') || len(opts.Prefix) > 100 {
			return nil, fmt.Errorf("cas: prefix %.100q: use at most 100 letters, digits, '-' and '_'", opts.Prefix)
		}
	}
	if opts.PageSpan < 0 || opts.PageSpan > replaystate.MaxSpan || opts.PageSpan%64 != 0 {
		return nil, fmt.Errorf("cas: pages of %d sequences: use a multiple of 64 up to %d", opts.PageSpan, replaystate.MaxSpan)
	}
	bounds, err := opts.Bounds.Resolved()
	if err != nil {
		return nil, fmt.Errorf("cas: %w", err)
	}
	setDefault(&opts.PageSpan, DefaultPageSpan)
	setDefault(&opts.MaxTries, DefaultMaxTries)
	setDefault(&opts.Parallel, DefaultParallel)
	setDefault(&opts.SweepInterval, DefaultSweepInterval)
	setDefault(&opts.ChangeInterval, DefaultChangeInterval)
	e := &engine{
		b: b, o: opts, limits: bounds.Limits(), handle: rand.Uint64(), start: time.Now(), //nolint:gosec // G404: a name, not a secret
		pages: make(map[string]Item), groups: make(map[string]*groupCache), seen: make(map[claimID]observation), turns: make(map[string]*turn),
	}
	if err := e.check(ctx); err != nil {
		return nil, fmt.Errorf("cas: open: %w", err)
	}
	e.sweeping, e.stop = context.WithCancel(context.Background())
	return &Store{replay.FromEngine(e), e}, nil
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Shift moves the clock of this Store by d, as a wrong clock of its process would. Call it
// before anything else uses the Store. It is for tests of backends.
func (s *Store) Shift(d time.Duration) { s.engine.shift = d }

// Close ends the sweeps that are under way, and waits for them until ctx ends; then it
// returns the error of ctx. Calls that come later still work; they start no sweep.
// It may be called again.
func (s *Store) Close(ctx context.Context) error {
	// Under the mutex, so that nothing starts while Wait below waits.
	s.engine.mu.Lock()
	s.engine.stop()
	s.engine.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.engine.sweeps.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// engine is the replaystate.Engine of a Store.
type engine struct {
	b      Backend
	o      Options
	limits replaystate.Limits
	handle uint64        // names this Store in the item of the store
	start  time.Time     // origin of the clock; read by the monotonic clock
	shift  time.Duration // of the clock, for tests

	sweeping context.Context //nolint:containedctx // ends the sweeps
	stop     context.CancelFunc
	sweeps   sync.WaitGroup

	mu      sync.Mutex // guards what follows, never held across a request
	meta    Item
	history replaystate.History    // that meta holds
	bumped  time.Time              // when this Store last raised the change number
	raised  uint64                 // to what; 0 if it has not in this memory
	renew   [16]byte               // the ID of a memory that has lost that; zero if none has
	pages   map[string]Item        // as they were last seen
	strange int64                  // how often one was found as this Store had not left it
	looked  int64                  // so many of them were there before meta was last read
	groups  map[string]*groupCache // by name
	seen    map[claimID]observation
	turns   map[string]*turn // by what they are the right to write
}

// groupCache is what this Store knows of a group.
type groupCache struct {
	read    bool // item and state are as they were last seen
	item    Item
	state   replaystate.Group
	counts  replaystate.Counts
	senders map[string]*replaystate.Counts
	newest  int64 // newest SealedAt that a sweep found, or this process consumed or refused
	swept   time.Time
	busy    bool // a sweep is under way

	missed   int       // writes of several pages in a row that met a change
	missedAt time.Time // the last of them
}

// maxCached bounds the pages that are kept in memory. What goes is read again.
const maxCached = 4096

// now is the clock of this process in Unix milliseconds.
func (e *engine) now() int64 {
	return e.start.Add(e.shift).UnixMilli() + time.Since(e.start).Milliseconds()
}

// claimID names a claim.
type claimID struct {
	group    string
	key      replaystate.Key
	sequence uint64
}

// observation is one state of a claim, and since when it is the same.
type observation struct {
	token [16]byte
	beat  uint32
	lease time.Duration
	since time.Time
	// looked is when it was asked for last.
	looked time.Time
	// awaited: its end will be entered into the page.
	awaited bool
}

// live is replaystate.Env.Live: a claim is live until the same state of it was
// seen for a whole lease.
func (e *engine) live(group string, o replaystate.Observed) (until int64, live bool) {
	if o.Lease == 0 {
		return o.Changed, false // that was seen, and entered
	}
	id := claimID{group, o.Key, o.Sequence}
	lease, now := time.Duration(o.Lease)*time.Millisecond, time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	s, ok := e.seen[id]
	if !ok || s.token != o.Token || s.beat != o.Beat {
		s = observation{token: o.Token, beat: o.Beat, lease: lease, since: now}
	}
	for old := range e.seen {
		if ok || int64(len(e.seen)) < max(maxCached, e.limits.Store.Records) {
			break
		}
		delete(e.seen, old)
	}
	s.looked = now
	e.seen[id] = s
	left := lease - now.Sub(s.since)
	return e.now() + (left + lapseMargin).Milliseconds(), left > 0
}

// overlook forgets the observations of a group of which no claim is left: those that were not
// asked for since all of its pages were read. An observation that was forgotten too early would
// make a claim live again, so that what is missing is reported later with each look: there are as
// many as there are claims, which Bounds.Store bounds.
func (e *engine) overlook(group string, since time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.seen, func(id claimID, o observation) bool { return id.group == group && o.looked.Before(since) })
}

// lapseMargin is the time in which the end of a lease gets into the page. A receiver that
// asks again after it, in whatever process, finds the claim ended.
const lapseMargin = time.Second

// awaitLapse enters the end of a claim's lease into its page, if the claim stays as it is.
// So the message of a receiver that crashed is granted at its next delivery, and not once
// each process has observed the claim.
func (e *engine) awaitLapse(group string, k replaystate.Key, sequence uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := claimID{group, k, sequence}
	s, ok := e.seen[id]
	if !ok || s.awaited || e.sweeping.Err() != nil {
		return
	}
	s.awaited = true
	e.seen[id] = s
	w := &work{
		group: group, key: k, index: replaystate.IndexOf(sequence, e.o.PageSpan),
		apply: func(env *replaystate.Env, s replaystate.Stream) { replaystate.Lapse(env, s, k, sequence) },
	}
	time.AfterFunc(s.lease-time.Since(s.since), func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.sweeping.Err() != nil {
			return
		}
		e.sweeps.Go(func() {
			if err := e.parallel(e.sweeping, []*work{w}); err != nil {
				return // every receiver observes the claim for itself
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			if now := e.seen[id]; now.token == s.token && now.beat == s.beat {
				delete(e.seen, id) // the page has its end, or another claim
			}
		})
	})
}
