package replaytest

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/queue-runtime/queue/replay"
)

func twoHandles(t *trial) {
	f := t.fixture(replay.Bounds{})
	a, b := handle{t, f.Open(0)}, handle{t, f.Open(0)}
	id := t.young("s")
	r := at(id, 1)
	a.begin(nil, r)
	b.begin(replay.ErrBusy, again(r))
	b.renew(nil, r) // the token owns the claim, not the handle
	b.finish(nil, replay.Consumed, r)
	a.begin(replay.ErrDuplicate, again(r))
	a.finish(nil, replay.Consumed, r)
	for n := uint64(2); n < 40; n++ {
		x, y := a, b
		if n%2 == 0 {
			x, y = b, a
		}
		r := at(id, n)
		r.Previous = n - 1
		if c := x.begin(nil, r)[0]; c.Gap {
			t.errorf("sequence %d: a gap", n)
		}
		y.finish(nil, replay.Consumed, r)
	}
	if x, y := a.stats(), b.stats(); x.Stamp.ID != y.Stamp.ID || !x.Stamp.Birth.Equal(y.Stamp.Birth) {
		t.errorf("two handles, two memories: %+v, %+v", x.Stamp, y.Stamp)
	}
	a.missing(id)
}

// shiftedClock: a handle whose clock is an hour off takes nothing away.
func shiftedClock(t *trial) {
	f := t.fixture(replay.Bounds{})
	a := handle{t, f.Open(0)}
	for _, shift := range []time.Duration{-time.Hour, time.Hour} {
		b := handle{t, f.Open(shift)}
		r := at(t.young("s"), 1)
		a.handled(r)
		stale := again(r)
		stale.Now = stale.Now.Add(shift)
		c, err := b.s.Begin(t.ctx, group, []replay.Request{stale})
		// An hour ahead, the tags are folded early.
		if err != nil || !errors.Is(c[0].Err, replay.ErrDuplicate) && !(shift > 0 && errors.Is(c[0].Err, replay.ErrReused)) {
			t.errorf("a clock %v off: %+v, %v", shift, c, err)
		}
		other := at(t.young("s"), 1)
		b.handled(other)
		c, err = a.s.Begin(t.ctx, group, []replay.Request{again(other)})
		if err != nil || c[0].Err == nil {
			t.errorf("consumed by a clock %v off: %+v, %v", shift, c, err)
		}
	}
}

// killed: a handle that is gone leaves its claims until their leases are over, and
// what it consumed.
func killed(t *trial) {
	f := t.fixture(replay.Bounds{})
	id := t.young("s")
	done, open := at(id, 1), at(id, 2)
	func() {
		h := handle{t, f.Open(0)}
		h.handled(done)
		h.begin(nil, open)
	}() // its process is dead
	h := handle{t, f.Open(0)}
	h.begin(replay.ErrDuplicate, again(done))
	h.begin(replay.ErrBusy, again(open))
	h.passLease(open)
	next := again(open)
	h.begin(nil, next)
	h.finish(nil, replay.Consumed, next)
	h.begin(replay.ErrDuplicate, again(open))
}

// crashCost: the message of a handle that is gone is refused once, to whichever handle is
// asked, and granted to any other at the time that the refusal names.
func crashCost(t *trial) {
	f := t.fixture(replay.Bounds{})
	r := at(t.young("s"), 1)
	handle{t, f.Open(0)}.begin(nil, r)
	c := handle{t, f.Open(0)}.begin(replay.ErrBusy, again(r))[0]
	if t.o.Unreliable {
		return // what tells the others may be lost
	}
	t.advance(time.Until(c.BusyUntil))
	next, h := again(r), handle{t, f.Open(0)}
	h.begin(nil, next)
	h.begin(replay.ErrBusy, again(r)) // the lease is a whole one
	h.finish(nil, replay.Consumed, next)
}

// lossy is a store whose answers are lost when it is told so, after the call has
// happened.
type lossy struct {
	replay.Store
	lose func() bool
}

var errLost = errors.New("the answer was lost")

func (s lossy) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	c, err := s.Store.Begin(ctx, group, r)
	if err == nil && s.lose() {
		return nil, errLost
	}
	return c, err
}

func (s lossy) Renew(ctx context.Context, group string, l []replay.Lease) ([]replay.Renewed, error) {
	c, err := s.Store.Renew(ctx, group, l)
	if err == nil && s.lose() {
		return nil, errLost
	}
	return c, err
}

func (s lossy) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	c, err := s.Store.Finish(ctx, group, f)
	if err == nil && s.lose() {
		return nil, errLost
	}
	return c, err
}

// insist repeats a call until it is answered.
func insist[In, Out any](ctx context.Context, call func(context.Context, string, []In) ([]Out, error), in []In) ([]Out, error) {
	for {
		out, err := call(ctx, group, in)
		if !errors.Is(err, errLost) {
			return out, err
		}
	}
}

// stubborn is a store that repeats calls until they are answered.
type stubborn struct{ replay.Store }

// repeat makes a call up to 50 times.
func repeat[T any](call func() (T, error)) (out T, err error) {
	for range 50 {
		if out, err = call(); err == nil {
			return out, nil
		}
	}
	return out, err
}

func (s stubborn) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	if checked(group, len(r)) != nil {
		return s.Store.Begin(ctx, group, r)
	}
	return repeat(func() ([]replay.Claim, error) { return s.Store.Begin(ctx, group, r) })
}

// checked says whether a call fails each time.
func checked(group string, n int) error {
	if group == "" || n > replay.MaxBatch {
		return replay.ErrInvalid
	}
	return nil
}

func (s stubborn) Renew(ctx context.Context, group string, l []replay.Lease) ([]replay.Renewed, error) {
	return repeat(func() ([]replay.Renewed, error) { return s.Store.Renew(ctx, group, l) })
}

func (s stubborn) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	return repeat(func() ([]replay.Finished, error) { return s.Store.Finish(ctx, group, f) })
}

func (s stubborn) Look(ctx context.Context, group string, q []replay.Query) ([]replay.Look, error) {
	return repeat(func() ([]replay.Look, error) { return s.Store.Look(ctx, group, q) })
}

func (s stubborn) Note(ctx context.Context, group string, n []replay.Note) ([]replay.Noted, error) {
	return repeat(func() ([]replay.Noted, error) { return s.Store.Note(ctx, group, n) })
}

func (s stubborn) Probe(ctx context.Context, group string) error {
	answer, err := repeat(func() (error, error) { //nolint:revive // the first is an answer
		err := s.Store.Probe(ctx, group)
		if errors.Is(err, replay.ErrFull) {
			return err, nil
		}
		return nil, err
	})
	return errors.Join(answer, err)
}

func (s stubborn) Stats(ctx context.Context) (replay.Stats, error) {
	return repeat(func() (replay.Stats, error) { return s.Store.Stats(ctx) })
}

func (s stubborn) KnownKeys(ctx context.Context, group string) ([]replay.KnownKey, error) {
	return repeat(func() ([]replay.KnownKey, error) { return s.Store.KnownKeys(ctx, group) })
}

func (s stubborn) NoteKey(ctx context.Context, group string, k replay.KnownKey) (replay.KnownKey, error) {
	if k.Queue == "" || k.ID == "" || len(k.Queue) > replay.MaxName {
		return s.Store.NoteKey(ctx, group, k)
	}
	return repeat(func() (replay.KnownKey, error) { return s.Store.NoteKey(ctx, group, k) })
}

// ForgetKey reports what the first attempt did: one that failed may have done it.
func (s stubborn) ForgetKey(ctx context.Context, group string, k replay.KnownKey) (bool, error) {
	before, err := s.KnownKeys(ctx, group)
	if err != nil {
		return false, err
	}
	found := slices.ContainsFunc(before, func(x replay.KnownKey) bool { return x.Queue == k.Queue && x.ID == k.ID })
	_, err = repeat(func() (bool, error) { return s.Store.ForgetKey(ctx, group, k) })
	return found, err
}

func (s stubborn) History(ctx context.Context) (replay.History, error) {
	return repeat(func() (replay.History, error) { return s.Store.History(ctx) })
}

func (s stubborn) AcceptLoss(ctx context.Context, lost replay.Stamp) (replay.Loss, error) {
	if lost.ID == [16]byte{} {
		return s.Store.AcceptLoss(ctx, lost)
	}
	return repeat(func() (replay.Loss, error) { return s.Store.AcceptLoss(ctx, lost) })
}

func (s stubborn) Streams(ctx context.Context, group string) iter.Seq2[replay.Stream, error] {
	return func(yield func(replay.Stream, error) bool) {
		all, err := repeat(func() (all []replay.Stream, err error) {
			for e, err := range s.Store.Streams(ctx, group) {
				if err != nil {
					return nil, err
				}
				all = append(all, e)
			}
			return all, nil
		})
		if err != nil {
			yield(replay.Stream{}, err)
			return
		}
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// lostAnswers: a call whose answer was lost can be repeated.
func lostAnswers(t *trial) {
	n := 0
	s := lossy{t.fixture(replay.Bounds{}).Open(0), func() bool { n++; return n%3 != 0 }}
	id := t.young("s")
	for i, kind := range []replay.FinishKind{replay.Consumed, replay.Released, replay.Parked} {
		r := at(id, uint64(i)+1) //nolint:gosec // G115: small
		c, err := insist(t.ctx, s.Begin, []replay.Request{r})
		if err != nil || c[0].Err != nil {
			t.errorf("Begin: %+v, %v", c, err)
		}
		l, err := insist(t.ctx, s.Renew, []replay.Lease{{ID: r.ID, Token: r.Token, Lease: lease}})
		if err != nil || l[0].Err != nil {
			t.errorf("Renew: %+v, %v", l, err)
		}
		f, err := insist(t.ctx, s.Finish, []replay.Finish{{ID: r.ID, Token: r.Token, Kind: kind}})
		if err != nil || f[0].Err != nil {
			t.errorf("Finish: %+v, %v", f, err)
		}
	}
}

// lostMemory: a store that lost its memory says so in its next answer.
func lostMemory(t *trial) {
	f := t.fixture(replay.Bounds{})
	if f.Lose == nil {
		return
	}
	h := handle{t, f.Open(0)}
	id := t.young("s")
	r := at(id, 1)
	before := h.begin(nil, r)[0].Stamp
	h.finish(nil, replay.Consumed, r)
	f.Lose()
	c, err := h.s.Begin(t.ctx, group, []replay.Request{again(r), at(id, 2)})
	if err != nil {
		t.fatalf("Begin: %v", err)
	}
	for i := range c {
		if c[i].Stamp.ID == before.ID {
			t.errorf("item %d: the ID is still that of the lost memory", i)
		}
	}
	if s := h.stats(); s.Stamp.ID == before.ID {
		t.errorf("Stats: the ID is still that of the lost memory")
	}
}

// restoredBackup: a store that was set back has a lower change number.
func restoredBackup(t *trial) {
	f := t.fixture(replay.Bounds{})
	if f.Backup == nil {
		return
	}
	h := handle{t, f.Open(0)}
	id := t.young("s")
	h.handled(at(id, 1))
	restore := f.Backup()
	high := uint64(0)
	for n := uint64(2); n < 5; n++ {
		t.advance(t.o.ChangesLate)
		r := at(id, n)
		c := h.begin(nil, r)[0]
		if c.Stamp.Change < high {
			t.errorf("the change number fell from %d to %d", high, c.Stamp.Change)
		}
		high = c.Stamp.Change
		h.finish(nil, replay.Consumed, r)
	}
	restore()
	t.advance(t.o.ChangesLate)
	h = handle{t, f.Open(0)}
	if c := h.begin(nil, at(id, 9))[0]; c.Stamp.Change >= high {
		t.errorf("change number %d after a restore, %d before", c.Stamp.Change, high)
	}
}

// restoredAndUsed: a process that saw a memory notices that a backup was restored, also if
// another process, which saw nothing of it, has called more often since than was lost.
func restoredAndUsed(t *trial) {
	f := t.fixture(replay.Bounds{})
	if f.Backup == nil {
		return
	}
	h := handle{t, f.Open(0)}
	id := t.young("s")
	h.handled(at(id, 1))
	t.advance(t.o.ChangesLate)
	restore := f.Backup()
	lost := at(id, 2)
	h.handled(lost)
	t.advance(t.o.ChangesLate)
	seen := h.begin(nil, at(id, 3))[0].Stamp
	restore()
	other, high := handle{t, f.Open(0)}, uint64(0)
	for n := uint64(1000); high <= seen.Change+1; n++ {
		t.advance(t.o.ChangesLate)
		r := at(id, n)
		high = other.begin(nil, r)[0].Stamp.Change
		other.finish(nil, replay.Consumed, r)
		if n > 1100 {
			t.fatalf("the change number stands at %d", high)
		}
	}
	t.advance(t.o.ChangesLate)
	c, err := h.s.Begin(t.ctx, group, []replay.Request{again(lost)})
	switch {
	case err != nil:
		t.errorf("Begin: %v", err)
	case c[0].Err == nil && c[0].Stamp.ID == seen.ID && c[0].Stamp.Change >= seen.Change:
		t.errorf("what was consumed is granted by %v, and the memory was %v", c[0].Stamp, seen)
	}
}

// contenders is how many goroutines want the same thing.
const contenders = 16

// oneWins: of many that want a message at once, one gets it.
func oneWins(t *trial) {
	f := t.fixture(replay.Bounds{})
	stores := []replay.Store{f.Open(0), f.Open(0)}
	id := t.young("s")
	for n := uint64(1); n <= 5; n++ {
		r := at(id, n)
		tokens := make([]replay.Request, contenders)
		answers := make([]error, contenders)
		var wg sync.WaitGroup
		for i := range contenders {
			tokens[i] = again(r)
			wg.Go(func() {
				c, err := stores[i%2].Begin(t.ctx, group, tokens[i:i+1])
				if answers[i] = err; err == nil {
					answers[i] = c[0].Err
				}
			})
		}
		wg.Wait()
		won := -1
		for i, err := range answers {
			switch {
			case err == nil && won >= 0:
				t.fatalf("two hold one claim")
			case err == nil:
				won = i
			case !errors.Is(err, replay.ErrBusy):
				t.errorf("Begin: %v, want ErrBusy", err)
			}
		}
		if won < 0 {
			t.fatalf("no contender holds the claim")
		}
		handle{t, stores[0]}.finish(nil, replay.Consumed, tokens[won])
	}
}
