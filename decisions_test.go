package queue

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/replay"
)

// TestBeginLimit: the store has until the last lock ends, and storeTimeout at most.
func TestBeginLimit(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	for name, c := range map[string]struct {
		locks []time.Duration // 0: without an end
		want  time.Duration
	}{
		"no end":               {[]time.Duration{0}, storeTimeout},
		"one without an end":   {[]time.Duration{time.Second, 0}, storeTimeout},
		"the last":             {[]time.Duration{time.Second, 3 * time.Second, 2 * time.Second}, 3 * time.Second},
		"long":                 {[]time.Duration{storeTimeout + 1}, storeTimeout},
		"all are over":         {[]time.Duration{-1, -time.Second}, storeTimeout},
		"one is over":          {[]time.Duration{-time.Second, 1}, 1},
		"one ends at the call": {[]time.Duration{-time.Hour, 1 * time.Nanosecond}, time.Nanosecond},
	} {
		var of []*taken
		for _, d := range c.locks {
			raw := &driver.Delivery{}
			if d != 0 {
				raw.LockedUntil = now.Add(d)
			}
			of = append(of, &taken{d: &Delivery{raw: raw}})
		}
		if got := beginLimit(of, now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	for until, want := range map[time.Duration]time.Duration{time.Second: time.Second, minLease: minLease, 0: minLease, -time.Second: minLease} {
		if got := lease(now.Add(until), now); got != want {
			t.Errorf("a lock of %s: a lease of %s, want %s", until, got, want)
		}
	}
	if got := lease(time.Time{}, now); got != defaultLease {
		t.Errorf("a lock without an end: a lease of %s", got)
	}
}

// TestClaimedTakesInEachAnswer of the store.
func TestClaimedTakesInEachAnswer(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	for name, c := range map[string]struct {
		claim     replay.Claim
		uncounted bool
		count     int
		finding   intake.Finding
		err       error
		wait      time.Duration
	}{
		"granted":             {replay.Claim{Gap: true}, true, 1, intake.Good, nil, 0},
		"a copy":              {replay.Claim{Err: replay.ErrDuplicate}, true, 1, intake.Duplicate, nil, 0},
		"too old":             {replay.Claim{Err: replay.ErrNotFresh}, true, 1, intake.Rejected, ErrMessageExpired, 0},
		"busy":                {replay.Claim{Err: replay.ErrBusy, BusyUntil: now.Add(time.Second)}, true, 1, intake.Rejected, ErrNonceBusy, time.Second},
		"busy until now":      {replay.Claim{Err: replay.ErrBusy, BusyUntil: now}, true, 1, intake.Rejected, ErrNonceBusy, minBusy},
		"reused":              {replay.Claim{Err: replay.ErrReused}, true, 1, intake.Rejected, ErrNonceReused, 0},
		"a collision":         {replay.Claim{Err: replay.ErrCollision}, true, 1, intake.Rejected, replay.ErrCollision, 0},
		"a quota":             {replay.Claim{Err: replay.ErrQuota}, true, 9, intake.Rejected, replay.ErrQuota, quotaDelay},
		"a quota, counted":    {replay.Claim{Err: replay.ErrQuota}, false, 1, intake.Rejected, replay.ErrQuota, quotaDelay},
		"a quota, again":      {replay.Claim{Err: replay.ErrQuota}, false, 3, intake.Rejected, replay.ErrQuota, 4 * quotaDelay},
		"a quota, no count":   {replay.Claim{Err: replay.ErrQuota}, false, 0, intake.Rejected, replay.ErrQuota, quotaDelay},
		"a quota, for long":   {replay.Claim{Err: replay.ErrQuota}, false, 99, intake.Rejected, replay.ErrQuota, maxQuotaDelay},
		"full":                {replay.Claim{Err: replay.ErrFull}, true, 1, intake.Rejected, ErrReplayStore, 0},
		"what it may not say": {replay.Claim{Err: replay.ErrHandled}, true, 1, intake.Rejected, ErrReplayStore, 0},
	} {
		for _, endless := range []bool{true, false} {
			r := &Receiver{endpoint: &endpoint{caps: driver.Capabilities{ReleaseUncounted: c.uncounted}}, watch: &storeWatch{}}
			x := &taken{finding: intake.Good, d: &Delivery{raw: &driver.Delivery{}, Received: Received{Count: c.count}}, request: replay.Request{Now: now, Token: replay.Token{1}, ID: replay.Identity{Stream: [16]byte{1}, Sequence: 1}}}
			if !endless {
				x.d.raw.LockedUntil = now.Add(time.Hour)
			}
			r.claimed(x, replay.Stamp{}, &c.claim)
			granted := c.err == nil && c.finding == intake.Good
			if x.finding != c.finding || c.err != nil && !errors.Is(x.err, c.err) || x.wait != c.wait || x.d.Gap != c.claim.Gap || x.d.claim.none() == granted {
				t.Errorf("%s: finding %d, %v, wait %s, claim %v", name, x.finding, x.err, x.wait, x.d.claim)
			}
			want := time.Time{}
			if granted && endless {
				want = now.Add(defaultLease)
			}
			if !x.d.claimedUntil.Equal(want) {
				t.Errorf("%s: claimed until %s, want %s", name, x.d.claimedUntil, want)
			}
		}
	}
}

// TestStoreWatch: another store and an older memory are a loss, told once; an answer that was
// overtaken is none.
func TestStoreWatch(t *testing.T) {
	a, b := [16]byte{1}, [16]byte{2}
	type answer struct{ before, now replay.Stamp }
	first := answer{replay.Stamp{}, replay.Stamp{ID: a, Change: 5}}
	for name, c := range map[string]struct {
		answers []answer
		losses  int
		stamp   replay.Stamp // the newest
	}{
		"one store":       {[]answer{first, {first.now, replay.Stamp{ID: a, Change: 5}}, {first.now, replay.Stamp{ID: a, Change: 9}}}, 0, replay.Stamp{ID: a, Change: 9}},
		"another store":   {[]answer{first, {first.now, replay.Stamp{ID: b, Change: 9}}, {replay.Stamp{ID: b, Change: 9}, replay.Stamp{ID: b, Change: 10}}}, 1, replay.Stamp{ID: b, Change: 10}},
		"two answers":     {[]answer{first, {first.now, replay.Stamp{ID: b, Change: 9}}, {first.now, replay.Stamp{ID: b, Change: 10}}}, 1, replay.Stamp{ID: b, Change: 10}},
		"overtaken":       {[]answer{first, {first.now, replay.Stamp{ID: a, Change: 9}}, {first.now, replay.Stamp{ID: a, Change: 6}}}, 0, replay.Stamp{ID: a, Change: 9}},
		"the same number": {[]answer{first, {first.now, first.now}}, 0, first.now},
		"back by one":     {[]answer{first, {first.now, replay.Stamp{ID: a, Change: 4}}}, 1, replay.Stamp{ID: a, Change: 4}},
	} {
		for _, policy := range []StoreLoss{StopOnLoss, WarnOnLoss} {
			losses := 0
			w := &storeWatch{policy: policy, warn: func(err error) {
				if losses++; !errors.Is(err, ErrReplayStoreLost) {
					t.Errorf("%s: told of %v", name, err)
				}
			}}
			var last error
			for _, x := range c.answers {
				last = w.see(x.before, x.now)
			}
			stops := c.losses > 0 && policy == StopOnLoss
			if losses != c.losses || (last != nil) != stops || (w.lost() != nil) != stops || w.seen() != c.stamp {
				t.Errorf("%s, policy %d: %d losses, %v, %v, newest %+v", name, policy, losses, last, w.lost(), w.seen())
			}
		}
	}
}

// TestRangesInWords for a log line.
func TestRangesInWords(t *testing.T) {
	many := slices.Repeat([]replay.Range{{First: 1, Last: 1}}, maxLoggedRanges)
	for _, c := range []struct {
		all  []replay.Range
		want string
	}{
		{nil, ""},
		{[]replay.Range{{First: 3, Last: 5}, {First: 9, Last: 9}}, "3-5, 9"},
		{many, strings.Repeat("1, ", maxLoggedRanges-1) + "1"},
		{append(slices.Clone(many), many[:3]...), strings.Repeat("1, ", maxLoggedRanges) + "and 3 more ranges"},
	} {
		if got := rangesText(c.all); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// TestVersionOfABody: the byte behind the marker, 0 if there is none.
func TestVersionOfABody(t *testing.T) {
	for body, want := range map[string]uint8{"": 0, envelope.Marker: 0, envelope.Marker + "\x07": 7, envelope.Marker + "\x07\x08": 7} {
		if got := versionOf([]byte(body)); got != want {
			t.Errorf("%q: version %d, want %d", body, got, want)
		}
	}
	for reason, want := range map[string]bool{
		driver.ReasonAuthentication: true, driver.ReasonPlaintext: true, driver.ReasonInvalidEnvelope: true, driver.ReasonUnsupportedVersion: true,
		driver.ReasonKeyNotFound: true, driver.ReasonSender: true, driver.ReasonMessageExpired: false, driver.ReasonNonceReused: false, driver.ReasonMaxDeliveries: false,
	} {
		if unread(reason) != want {
			t.Errorf("%s was not read: %v", reason, !want)
		}
	}
	if clip(strings.Repeat("x", MaxIDBytes)) != strings.Repeat("x", MaxIDBytes) || len(clip(strings.Repeat("x", MaxIDBytes+1))) != MaxIDBytes || clip("") != "" {
		t.Error("IDs are clipped elsewhere")
	}
}

// TestParallelCallsEachOnce, whether or not it takes several goroutines.
func TestParallelCallsEachOnce(t *testing.T) {
	for _, bytes := range []int{0, parallelBytes - 1, parallelBytes, 1 << 30} {
		for _, n := range []int{0, 1, 2, 3, 100} {
			calls := make([]atomic.Int32, n)
			parallel(n, bytes, func(i int) { calls[i].Add(1) })
			for i := range calls {
				if got := calls[i].Load(); got != 1 {
					t.Errorf("%d of %d with %d bytes: %d calls", i, n, bytes, got)
				}
			}
		}
	}
}

// TestReporterOfAGroup: the first receiver that takes part, else the first; when the last one
// leaves there is none.
func TestReporterOfAGroup(t *testing.T) {
	out, in, other := &Receiver{options: ReceiverOptions{NoAccounting: true}}, &Receiver{}, &Receiver{}
	a := &accountant{receivers: []*Receiver{out, in, other}, due: time.Now().Add(time.Hour)}
	step := func(leaves, reporter *Receiver, taken bool) {
		t.Helper()
		due := a.due
		if a.leave(leaves) != nil {
			t.Error("a look runs")
		}
		if a.reporter() != reporter || a.due.IsZero() != taken {
			t.Errorf("the reporter is %p, want %p; the next look is due %s", a.reporter(), reporter, a.due)
		}
		a.due = due
	}
	if a.reporter() != in || a.empty() {
		t.Error("the first that takes part is not the reporter")
	}
	step(&Receiver{}, in, false) // which is none of them
	step(other, in, false)
	step(in, out, true)
	step(out, nil, true)
	if !a.empty() {
		t.Error("the group is not empty")
	}
	var none *accountant
	none.start(time.Now())
	cancelled := false
	done := make(chan struct{})
	a = &accountant{receivers: []*Receiver{in, other}, cancel: func() { cancelled = true }, done: done}
	if a.leave(in) != nil || cancelled {
		t.Error("the look ends although a receiver is left")
	}
	if a.leave(other) == nil || !cancelled {
		t.Error("the look of a group goes on after its last receiver")
	}
}
