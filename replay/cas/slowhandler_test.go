package cas_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
)

func headOf(t *testing.T, m *memory) *replaystate.Head {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, item := range m.items {
		if strings.HasPrefix(key, ".h.") {
			h, err := replaystate.DecodeHead(item.Value)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
	}
	return nil
}

// keepsInUse lets copies of a handled message come for more than three hours, which keep its page in use, while
// the stream goes on from next. It returns what is next then.
func (v *youngStream) keepsInUse(s *cas.Store, handled replay.Request, next uint64) uint64 {
	v.Helper()
	for range 50 {
		v.handle(s, next, next+19)
		next += 20
		handled.Token = replay.NewToken()
		if c, err := s.Begin(v.Context(), "group", []replay.Request{handled}); err != nil || !errors.Is(c[0].Err, replay.ErrDuplicate) {
			v.Fatal(c, err)
		}
		v.sweep(s, 4*time.Minute)
	}
	return next
}

// TestRedriveWithSlowHandler: 5 is dead-lettered and tried again by an operator, and its handler takes longer than
// five minutes. Its page is apart until then, so that 20, which is handled there afterwards, is not lost.
func TestRedriveWithSlowHandler(t *testing.T) {
	for _, slow := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory()
			s := open(t, m, &cas.Options{PageSpan: 64, Bounds: replay.Bounds{KeepStream: 2 * time.Hour}})
			v := young(t)
			time.Sleep(2 * time.Second)
			v.sweep(s, 0)
			v.handle(s, 1, 4)
			five := v.request(5)
			five.RetryWindow = 24 * time.Hour
			v.begin(s, five)
			v.finish(s, five, replay.Parked)
			v.handle(s, 6, 19) // 20 is late
			v.handle(s, 21, 100)
			v.sweep(s, 10*time.Minute)
			// 101 is rejected as too old, so that the interval before it ends.
			stale := v.request(101)
			stale.Now = stale.FreshUntil.Add(time.Hour)
			if c, err := s.Begin(t.Context(), "group", []replay.Request{stale}); err != nil || !errors.Is(c[0].Err, replay.ErrNotFresh) {
				t.Fatal(c, err)
			}
			five.Token = replay.NewToken()
			five.Now = time.Now()
			v.begin(s, five)
			if slow {
				v.sweep(s, 10*time.Minute) // the handler still works
			}
			v.finish(s, five, replay.Consumed)
			twenty := v.request(20)
			v.begin(s, twenty)
			if apart := headOf(t, m).Apart; len(apart) == 0 {
				t.Errorf("slow %v: nothing is apart while 20 is in hand", slow)
			}
			v.finish(s, twenty, replay.Consumed)
			next := v.keepsInUse(s, twenty, 102)
			for range 4 {
				v.handle(s, next, next)
				next++
				v.sweep(s, time.Hour)
			}
			if a := v.account(s); len(a.Missing) > 0 || a.MissingForgotten > 0 {
				t.Errorf("slow %v: all were handled, dead-lettered or rejected: %+v", slow, a)
			}
		})
	}
}

// TestAcceptsWhatIsApart: 20 is lost, and the account passes its page, which is in use. It is listed as long as the
// page is there, so that it can be accepted, and does not count as lost when the page is folded.
func TestAcceptsWhatIsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		s := open(t, m, &cas.Options{PageSpan: 64, Bounds: replay.Bounds{KeepStream: 2 * time.Hour}})
		v := young(t)
		time.Sleep(2 * time.Second)
		v.sweep(s, 0)
		v.handle(s, 65, 100)
		v.sweep(s, 10*time.Minute)
		v.handle(s, 1, 18)
		again := v.request(19)
		v.begin(s, again)
		v.finish(s, again, replay.Consumed)
		v.handle(s, 21, 64) // 20 is lost
		v.keepsInUse(s, again, 102)
		a := v.account(s)
		lost := replay.Range{First: 20, Last: 20}
		if a.Start <= 64 || len(a.Missing) != 2 || a.Missing[0].Range != lost || a.MissingForgotten > 0 {
			t.Fatalf("%+v; want 20 and 101 to be missing, in front of and behind Start", a)
		}
		n, err := s.Note(t.Context(), "group", []replay.Note{{Sender: "sender", Stream: v.stream, Range: lost, Kind: replay.NoteAccepted}})
		if err != nil || n[0].Err != nil || n[0].Fresh != 1 {
			t.Fatal(n, err)
		}
		for _, when := range []string{"at once", "after its page was folded", "an hour later"} {
			if after := v.account(s); len(after.Missing) != 1 || after.MissingForgotten > 0 {
				t.Errorf("%s: %+v; want only 101 to be missing", when, after)
			}
			v.sweep(s, 30*time.Minute)
		}
	})
}

// headFails is a backend that fails once to write a head: the process dies there, or the request is throttled.
type headFails struct {
	*memory
	fail bool
}

func (h *headFails) Swap(ctx context.Context, key, version string, value []byte) (cas.Item, bool, error) {
	if h.fail && strings.HasPrefix(key, ".h.") {
		h.fail = false
		return cas.Item{}, false, errDead
	}
	return h.memory.Swap(ctx, key, version, value)
}

// TestRetiredIsFolded: a sweep retires a page with a parked message and fails to write the head. The next one folds it.
func TestRetiredIsFolded(t *testing.T) {
	for _, fail := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := &headFails{memory: newMemory()}
			s := open(t, b, &cas.Options{PageSpan: 64})
			v := young(t)
			time.Sleep(2 * time.Second)
			v.sweep(s, 0)
			v.handle(s, 1, 9)
			ten := v.request(10)
			v.begin(s, ten)
			v.finish(s, ten, replay.Parked)
			v.handle(s, 12, 20)
			v.sweep(s, 10*time.Minute) // folded, but for what is parked
			v.handle(s, 11, 11)        // it was late; it settles nothing new
			b.fail = fail
			v.sweep(s, 10*time.Minute)
			for range 24 {
				v.sweep(s, time.Hour)
			}
			h := headOf(t, b.memory)
			if len(h.Apart) > 0 {
				t.Errorf("head write failed once: %v; a day and 24 sweeps later apart are %v, intervals %v", fail, h.Apart, h.Intervals)
			}
		})
	}
}
