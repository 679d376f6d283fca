package replay_test

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
)

func TestBounds(t *testing.T) {
	b, err := replay.Bounds{}.Resolved()
	if err != nil {
		t.Fatal(err)
	}
	want := replay.Bounds{
		Store:  replay.Quota{Records: 1 << 20, Streams: 1 << 21, Intervals: 1 << 22},
		Group:  replay.Quota{Records: 3 << 18, Streams: 3 << 19, Intervals: 3 << 20},
		Sender: replay.Quota{Records: 1 << 19, Streams: 1 << 20, Intervals: 1 << 21},
		Recent: 1 << 18, KeepStream: 15 * 24 * time.Hour, ParkedTTL: 15 * 24 * time.Hour,
	}
	if b != want {
		t.Errorf("the default is %+v, want %+v", b, want)
	}
	if again, err := b.Resolved(); err != nil || again != b {
		t.Errorf("resolved twice: %+v, %v", again, err)
	}
	q := func(n int) replay.Quota { return replay.Quota{Records: n, Streams: n + 1, Intervals: n + 2} }
	own := replay.Bounds{Store: q(30), Group: q(20), Sender: q(10), Recent: 5, KeepStream: time.Hour, ParkedTTL: time.Minute}
	if b, err := own.Resolved(); err != nil || b != own {
		t.Errorf("of %+v became %+v, %v", own, b, err)
	}
	// Small ones never end at none.
	b, err = replay.Bounds{Store: replay.Quota{Records: 1, Streams: 1, Intervals: 1}}.Resolved()
	if one := (replay.Quota{Records: 1, Streams: 1, Intervals: 1}); err != nil || b.Group != one || b.Sender != one {
		t.Errorf("a store of one: %+v, %v", b, err)
	}
	for _, bad := range []replay.Bounds{
		{Store: replay.Quota{Records: -1}}, {Group: replay.Quota{Streams: -1}}, {Sender: replay.Quota{Intervals: -1}},
		{Recent: -1}, {KeepStream: -1}, {ParkedTTL: -1},
	} {
		if _, err := replay.NewMemory(&replay.MemoryOptions{Bounds: bad}); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestFull(t *testing.T) {
	s := replay.Stats{Records: 10, Streams: 90, Intervals: 50, Capacity: replay.Bounds{Store: replay.Quota{Records: 100, Streams: 100, Intervals: 100}}}
	if got := s.Full(); got != 0.9 {
		t.Errorf("%v, want 0.9", got)
	}
	// One group alone is stopped at its own bound.
	s.Capacity.Group = replay.Quota{Records: 75, Streams: 95, Intervals: 50}
	if got := s.Full(); got != 1 {
		t.Errorf("with bounds of a group %v, want 1", got)
	}
	s.Capacity.Group.Intervals, s.Records = 75, 150
	if got := s.Full(); got != 1 {
		t.Errorf("with more records than one group may have %v, want 1", got)
	}
}

func TestTokens(t *testing.T) {
	a, b := replay.NewToken(), replay.NewToken()
	if a == b || a == (replay.Token{}) {
		t.Errorf("two tokens are the same, or one is none")
	}
	if a.String() != b.String() {
		t.Error("a token is printed")
	}
}

func TestResealable(t *testing.T) {
	now := time.Now()
	for state, want := range map[replay.State]bool{
		replay.StateUnknown: false, replay.StateUnused: true, replay.StateReleased: true, replay.StateParked: true, replay.StateConsumed: false,
	} {
		if l := (replay.Look{State: state}); l.Resealable(now) != want {
			t.Errorf("%v: %v, want %v", state, !want, want)
		}
	}
	for _, after := range []time.Duration{-time.Second, time.Second} {
		if l := (replay.Look{State: replay.StateClaimed, LeaseUntil: now.Add(after)}); l.Resealable(now) != (after < 0) {
			t.Errorf("a claim that ends in %v: resealable %v", after, after >= 0)
		}
	}
}
