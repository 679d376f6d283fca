package storefleet_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/storefleet"
)

func TestMain(m *testing.M) {
	if storefleet.Main(openTarget) {
		return
	}
	os.Exit(m.Run())
}

// apart is a memory of one process that pretends to be the one of all.
type apart struct{ replay.Store }

func (s apart) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	c, err := s.Store.Begin(ctx, group, r)
	for i := range c {
		c[i].Stamp.ID = [16]byte{1}
	}
	return c, err
}

func (s apart) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	got, err := s.Store.Finish(ctx, group, f)
	for i := range got {
		got[i].Stamp.ID = [16]byte{1}
	}
	return got, err
}

// changing is a memory whose ID changes after a while.
type changing struct {
	replay.Store
	since time.Time
}

func (s changing) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	c, err := s.Store.Begin(ctx, group, r)
	if time.Since(s.since) > 300*time.Millisecond {
		for i := range c {
			c[i].Stamp.ID = [16]byte{1}
		}
	}
	return c, err
}

func openTarget(_ context.Context, target string) (replay.Store, error) {
	m, err := replay.NewMemory(nil)
	if err != nil {
		return nil, err
	}
	switch target {
	case "failing":
		return nil, errors.New("the store is on fire")
	case "apart":
		return apart{m}, nil
	case "changing":
		return changing{m, time.Now()}, nil
	}
	return m, nil
}

const (
	longest = 5 * time.Minute // a fleet that hangs
	enough  = 300             // messages: those of two processes meet
)

// TestFindsWhatIsWrong: a fleet whose processes do not share their memory is found out, so
// is one whose memory changes, and nothing is said of a sound one.
func TestFindsWhatIsWrong(t *testing.T) {
	// A fleet ends by what it has done: on a busy machine its processes take seconds to start.
	run := func(until func(*storefleet.Result) bool, targets ...string) *storefleet.Result {
		t.Helper()
		got := storefleet.Run(t, storefleet.Options{Targets: targets, Receivers: 2, Lease: time.Second, For: longest, Until: until})
		t.Log(got)
		if got.Completed == 0 {
			t.Error("nothing was completed")
		}
		return got
	}
	together := -1 // how many messages were completed when both processes worked
	both := func(r *storefleet.Result) bool {
		if together < 0 && r.Heard == 2 {
			together = r.Completed
		}
		return together >= 0 && r.Completed > together+enough
	}
	if got := run(both, "apart", "apart"); len(got.Again) == 0 {
		t.Error("two memories under one ID: nothing was granted again")
	}
	if got := run(func(r *storefleet.Result) bool { return r.Reporters > 0 }, "changing"); got.Reporters != 1 {
		t.Errorf("a memory that changed: %d processes reported it, want 1", got.Reporters)
	}
	if got := run(func(r *storefleet.Result) bool { return r.Completed > enough }, "sound"); len(got.Again) > 0 || got.Reporters > 0 || got.Failed > 0 {
		t.Errorf("a sound memory: %v", got)
	}
}

// TestWhy: a result says why calls failed, of each process.
func TestWhy(t *testing.T) {
	got := storefleet.Run(t, storefleet.Options{
		Targets: []string{"sound", "failing"}, Receivers: 1, Lease: time.Second, For: longest,
		Until: func(r *storefleet.Result) bool { return r.Completed > 0 && r.Why[1] != "" },
	})
	if text := got.String(); !strings.Contains(text, "process 1 failed last with") || !strings.Contains(text, "the store is on fire") || strings.Contains(text, "process 0") {
		t.Errorf("%s: want the failure of process 1 and none of process 0", text)
	}
}

// TestOnce: of a broker that delivers once, every message is completed by one receiver.
func TestOnce(t *testing.T) {
	got := storefleet.Run(t, storefleet.Options{
		Targets: []string{"apart", "apart"}, Receivers: 2, Lease: time.Second, For: longest, Once: true, Kill: 400 * time.Millisecond,
		Until: func(r *storefleet.Result) bool { return r.Completed > 0 && r.Killed > 2 }, // more than those that end with the fleet
	})
	t.Log(got)
	if got.Completed == 0 || got.Killed < 2 {
		t.Errorf("%v, want completed messages and two killed processes", got)
	}
}
