package replay_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/replay"
)

var errEngine = errors.New("the disk is gone")

// brokenEngine answers nothing, and counts how often it was asked.
type brokenEngine struct{ calls int }

func (e *brokenEngine) fail() (replaystate.Stamp, error) {
	e.calls++
	return replaystate.Stamp{}, errEngine
}

func (e *brokenEngine) Begin(context.Context, string, []replaystate.Request) ([]replaystate.Claim, replaystate.Stamp, error) {
	s, err := e.fail()
	return nil, s, err
}

func (e *brokenEngine) Renew(context.Context, string, []replaystate.Lease) ([]replaystate.Outcome, replaystate.Stamp, error) {
	s, err := e.fail()
	return nil, s, err
}

func (e *brokenEngine) Finish(context.Context, string, []replaystate.Finish) ([]replaystate.Outcome, replaystate.Stamp, error) {
	s, err := e.fail()
	return nil, s, err
}

func (e *brokenEngine) Look(context.Context, string, []replaystate.Query) ([]replaystate.Look, replaystate.Stamp, error) {
	s, err := e.fail()
	return nil, s, err
}

func (e *brokenEngine) Note(context.Context, string, []replaystate.Note) ([]uint64, replaystate.Stamp, error) {
	s, err := e.fail()
	return nil, s, err
}

func (e *brokenEngine) Streams(context.Context, string) iter.Seq2[replaystate.Entry, error] {
	return func(yield func(replaystate.Entry, error) bool) {
		_, err := e.fail()
		yield(replaystate.Entry{}, err)
	}
}

func (e *brokenEngine) Probe(context.Context, string) (replaystate.Outcome, error) {
	_, err := e.fail()
	return 0, err
}

func (e *brokenEngine) Stats(context.Context) (replaystate.Stats, error) {
	_, err := e.fail()
	return replaystate.Stats{}, err
}

func (e *brokenEngine) Group(context.Context, string) (replaystate.Group, error) {
	_, err := e.fail()
	return replaystate.Group{}, err
}

// Change fails after it has found the key.
func (e *brokenEngine) Change(_ context.Context, _ string, do func(*replaystate.Group)) error {
	do(&replaystate.Group{Keys: []replaystate.KnownKey{{Queue: "q", ID: "k"}}})
	_, err := e.fail()
	return err
}

func (e *brokenEngine) History(context.Context) (replaystate.History, error) {
	_, err := e.fail()
	return replaystate.History{}, err
}

func (e *brokenEngine) Accept(context.Context, replaystate.Stamp) (replaystate.Loss, error) {
	_, err := e.fail()
	return replaystate.Loss{}, err
}

// A store passes its engine's failure on as the failure of the call, and does not ask the
// engine about a call that is wrong in itself.
func TestEngineFails(t *testing.T) {
	now := time.Now()
	id := replay.Identity{Stream: [16]byte{1}, Sequence: 1}
	token := replay.Token{1}
	e := new(brokenEngine)
	s := replay.FromEngine(e)
	calls := map[string]func(group string) error{
		"Begin": func(group string) error {
			_, err := s.Begin(t.Context(), group, []replay.Request{{
				ID: id, Token: token, SealedAt: now, FreshUntil: now.Add(time.Minute), Now: now,
				RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Minute,
			}})
			return err
		},
		"Renew": func(group string) error {
			_, err := s.Renew(t.Context(), group, []replay.Lease{{ID: id, Token: token, Lease: time.Minute}})
			return err
		},
		"Finish": func(group string) error {
			_, err := s.Finish(t.Context(), group, []replay.Finish{{ID: id, Token: token, Kind: replay.Consumed}})
			return err
		},
		"Look": func(group string) error {
			_, err := s.Look(t.Context(), group, []replay.Query{{ID: id, SealedAt: now}})
			return err
		},
		"Note": func(group string) error {
			_, err := s.Note(t.Context(), group, []replay.Note{{Stream: id.Stream, Range: replay.Range{First: 1, Last: 2}, Kind: replay.NoteLate}})
			return err
		},
		"Streams": func(group string) (err error) {
			for _, err = range s.Streams(t.Context(), group) {
				break
			}
			return err
		},
		"KnownKeys": func(group string) error { _, err := s.KnownKeys(t.Context(), group); return err },
		"NoteKey": func(group string) error {
			_, err := s.NoteKey(t.Context(), group, replay.KnownKey{Queue: "q", ID: "k"})
			return err
		},
		"ForgetKey": func(group string) error {
			found, err := s.ForgetKey(t.Context(), group, replay.KnownKey{Queue: "q", ID: "k"})
			if found {
				t.Error("ForgetKey has found a key although it failed")
			}
			return err
		},
		"Probe": func(group string) error { return s.Probe(t.Context(), group) },
	}
	for name, call := range calls {
		before := e.calls
		if err := call("g"); !errors.Is(err, errEngine) || e.calls != before+1 {
			t.Errorf("%s: %v after %d calls, want the engine's error after one", name, err, e.calls-before)
		}
		for _, group := range []string{"", strings.Repeat("g", replay.MaxGroup+1)} {
			if err := call(group); err == nil || errors.Is(err, errEngine) || e.calls != before+1 {
				t.Errorf("%s with a group of %d bytes: %v", name, len(group), err)
			}
		}
	}
	if _, err := s.Stats(t.Context()); !errors.Is(err, errEngine) {
		t.Errorf("Stats: %v", err)
	}
	if _, err := s.History(t.Context()); !errors.Is(err, errEngine) {
		t.Errorf("History: %v", err)
	}
	if _, err := s.AcceptLoss(t.Context(), replay.Stamp{ID: [16]byte{1}}); !errors.Is(err, errEngine) {
		t.Errorf("AcceptLoss: %v", err)
	}
	// One item that is refused beside one that is asked for: no answer is taken for a grant.
	if f, err := s.Finish(t.Context(), "g", []replay.Finish{{ID: id}, {ID: id, Token: token, Kind: replay.Consumed}}); !errors.Is(err, errEngine) {
		t.Errorf("Finish with an item that is refused: %+v, %v", f, err)
	}
	before := e.calls
	if _, err := s.Look(t.Context(), "g", make([]replay.Query, replay.MaxBatch+1)); err == nil || e.calls != before {
		t.Errorf("a batch that is too large: %v", err)
	}
}

// A request that breaks the bounds of its type is refused, alone.
func TestRequestsOutOfBounds(t *testing.T) {
	id := replay.Identity{Stream: [16]byte{1}, Sequence: 1}
	s, err := replay.NewMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := s.Note(t.Context(), "g", []replay.Note{
		{Stream: id.Stream, Range: replay.Range{First: 1, Last: 2}, Kind: 99},
		{Sender: id.Sender, Stream: id.Stream, Range: replay.Range{First: 1, Last: 2}},
		{Stream: id.Stream, Range: replay.Range{First: 2, Last: 1}, Kind: replay.NoteLate},
		{Range: replay.Range{First: 1, Last: 2}, Kind: replay.NoteLate}, // of no stream
		{Sender: strings.Repeat("s", replay.MaxSender+1), Stream: id.Stream, Range: replay.Range{First: 1, Last: 2}, Kind: replay.NoteLate},
	})
	if err != nil || len(notes) != 5 {
		t.Errorf("notes: %v, %v", notes, err)
	}
	for i, n := range notes {
		if !errors.Is(n.Err, replay.ErrInvalid) {
			t.Errorf("note %d: %v", i, n.Err)
		}
	}
	leases, err := s.Renew(t.Context(), "g", []replay.Lease{{ID: id, Token: replay.Token{1}}})
	if err != nil || !errors.Is(leases[0].Err, replay.ErrInvalid) {
		t.Errorf("a lease of 0: %v, %v", leases, err)
	}
	if got := replay.State(77).String(); got != "state 77" {
		t.Errorf("an unknown state is called %q", got)
	}
}
