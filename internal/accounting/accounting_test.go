package accounting

import (
	"reflect"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
)

var (
	now    = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	limits = Limits{Late: time.Hour, Missing: 4 * time.Hour}
)

func missing(first, last uint64, age time.Duration) replay.Missing {
	return replay.Missing{Range: replay.Range{First: first, Last: last}, Since: now.Add(-age)}
}

func TestAccount(t *testing.T) {
	reported := func(m replay.Missing, late, missing bool) replay.Missing {
		m.ReportedLate, m.ReportedMissing = late, missing
		return m
	}
	for _, c := range []struct {
		name    string
		streams []replay.Stream
		want    Account // Reports by stream 1 unless it says otherwise
	}{
		{"no stream", nil, Account{}},
		{"nothing missing", []replay.Stream{{Start: 1, Settled: 100}}, Account{}},
		{
			"delayed: it is due when it is late",
			[]replay.Stream{{Missing: []replay.Missing{missing(3, 5, time.Hour-1)}}},
			Account{Next: now.Add(1)},
		},
		{
			"late from the limit on",
			[]replay.Stream{{Missing: []replay.Missing{missing(3, 5, time.Hour)}}},
			Account{Late: 3, Reports: []Report{{Kind: replay.NoteLate, Ranges: []replay.Range{{First: 3, Last: 5}}}}, Next: now.Add(3 * time.Hour)},
		},
		{
			"late, and reported",
			[]replay.Stream{{Missing: []replay.Missing{reported(missing(3, 5, time.Hour), true, false)}}},
			Account{Late: 3, Next: now.Add(3 * time.Hour)},
		},
		{
			"missing from the limit on, although it was reported late",
			[]replay.Stream{{Missing: []replay.Missing{reported(missing(7, 7, 4*time.Hour), true, false)}}},
			Account{Missing: 1, Reports: []Report{{Kind: replay.NoteMissing, Ranges: []replay.Range{{First: 7, Last: 7}}}}},
		},
		{
			"missing, and reported",
			[]replay.Stream{{Missing: []replay.Missing{reported(missing(7, 8, 5*time.Hour), false, true)}}},
			Account{Missing: 2},
		},
		{
			"reported missing under a lower limit",
			[]replay.Stream{{Missing: []replay.Missing{reported(missing(7, 8, 2*time.Hour), false, true)}}},
			Account{Late: 2, Next: now.Add(2 * time.Hour)},
		},
		{
			"several of one stream: the earliest is due next",
			[]replay.Stream{{Missing: []replay.Missing{missing(1, 1, 5*time.Hour), missing(3, 4, 2*time.Hour), missing(6, 6, time.Minute), missing(8, 8, 6*time.Hour)}}},
			Account{Late: 2, Missing: 2, Next: now.Add(59 * time.Minute), Reports: []Report{
				{Kind: replay.NoteMissing, Ranges: []replay.Range{{First: 1, Last: 1}, {First: 8, Last: 8}}},
				{Kind: replay.NoteLate, Ranges: []replay.Range{{First: 3, Last: 4}}},
			}},
		},
		{
			"streams are told apart",
			[]replay.Stream{
				{Sender: "a", Stream: [16]byte{1}, Missing: []replay.Missing{missing(1, 1, 2*time.Hour)}},
				{Sender: "b", Stream: [16]byte{2}, Missing: []replay.Missing{missing(1, 2, 2*time.Hour)}},
			},
			Account{Late: 3, Next: now.Add(2 * time.Hour), Reports: []Report{
				{Sender: "a", Stream: [16]byte{1}, Kind: replay.NoteLate, Ranges: []replay.Range{{First: 1, Last: 1}}},
				{Sender: "b", Stream: [16]byte{2}, Kind: replay.NoteLate, Ranges: []replay.Range{{First: 1, Last: 2}}},
			}},
		},
		{"what is not listed any more counts", []replay.Stream{{MissingForgotten: 9}}, Account{Missing: 9}},
		{
			"implausible counts as none",
			[]replay.Stream{{Sender: "a", Stream: [16]byte{1}, Implausible: true, MissingForgotten: 5}},
			Account{Implausible: []StreamID{{"a", [16]byte{1}}}},
		},
		{
			"a store whose clock is ahead",
			[]replay.Stream{{Missing: []replay.Missing{missing(1, 1, -time.Minute)}}},
			Account{Next: now.Add(time.Hour + time.Minute)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got Account
			for i := range c.streams {
				got.Add(&c.streams[i], now, limits)
			}
			got.ranges = 0
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// With a limit for missing below that for late nothing is ever late.
func TestMissingBeforeLate(t *testing.T) {
	var a Account
	a.Add(&replay.Stream{Missing: []replay.Missing{missing(1, 1, time.Minute), missing(3, 3, 0)}}, now, Limits{Late: time.Hour, Missing: time.Minute})
	if a.Late != 0 || a.Missing != 1 || len(a.Reports) != 1 || a.Reports[0].Kind != replay.NoteMissing || !a.Next.Equal(now.Add(time.Minute)) {
		t.Errorf("%+v, want one missing, reported, and the next look in a minute", a)
	}
}

func TestLimitsOf(t *testing.T) {
	for _, c := range []struct{ after, age, skew, late, missing time.Duration }{
		{time.Hour, 4 * time.Hour, time.Minute, time.Hour, 4*time.Hour + time.Minute},
		{time.Hour, 5 * time.Minute, 30 * time.Second, time.Hour, time.Hour},
	} {
		if got, want := LimitsOf(c.after, c.age, c.skew), (Limits{c.late, c.missing}); got != want {
			t.Errorf("LimitsOf(%s, %s, %s) = %+v, want %+v", c.after, c.age, c.skew, got, want)
		}
	}
}

// An account reports a bounded number of ranges, and is due at once for the others.
func TestMaxRanges(t *testing.T) {
	s := replay.Stream{}
	for i := range uint64(MaxRanges + 10) {
		s.Missing = append(s.Missing, missing(2*i+1, 2*i+1, 5*time.Hour))
	}
	var a Account
	a.Add(&s, now, limits)
	if a.Missing != MaxRanges+10 || len(a.Reports) != 1 || len(a.Reports[0].Ranges) != MaxRanges || !a.Next.Equal(now) {
		t.Errorf("%d missing, %d reports, next %s; want %d missing, one report of %d ranges, due at once", a.Missing, len(a.Reports), a.Next, MaxRanges+10, MaxRanges)
	}
	notes := a.Reports[0].Notes()
	if len(notes) != MaxRanges || notes[1] != (replay.Note{Range: replay.Range{First: 3, Last: 3}, Kind: replay.NoteMissing}) {
		t.Errorf("%d notes, the second %+v", len(notes), notes[1])
	}
}

func TestPause(t *testing.T) {
	for _, c := range []struct{ next, took, after, want time.Duration }{
		{0, 0, time.Hour, 15 * time.Minute},
		{0, 0, 24 * time.Hour, 15 * time.Minute},
		{0, 0, 20 * time.Minute, 5 * time.Minute},
		{0, 0, time.Second, time.Second},
		{time.Minute, 0, time.Hour, time.Minute},
		{1, 0, time.Hour, time.Second},
		{-time.Hour, 0, time.Hour, time.Second},
		{time.Hour, 0, time.Hour, 15 * time.Minute},
		{time.Second, time.Second, time.Hour, 20 * time.Second},
		{0, time.Minute, time.Hour, 20 * time.Minute},
	} {
		var next time.Time
		if c.next != 0 {
			next = now.Add(c.next)
		}
		if got := Pause(next, now, c.took, c.after); got != c.want {
			t.Errorf("next in %s, a look of %s, MissingAfter %s: %s, want %s", c.next, c.took, c.after, got, c.want)
		}
	}
}
