package dynamoreplay_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue/aws/dynamoreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/dynalite"
	"github.com/queue-runtime/queue/testbed/httpproxy"
	"github.com/queue-runtime/queue/testbed/storefleet"
)

func TestMain(m *testing.M) {
	if storefleet.Main(openTarget) {
		return
	}
	os.Exit(m.Run())
}

// openTarget opens the store of a process of a fleet.
func openTarget(ctx context.Context, target string) (replay.Store, error) {
	cfg := config()
	cfg.HTTPClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	return dynamoreplay.New(ctx, cfg, table, &dynamoreplay.Options{
		Endpoint: target, SweepInterval: 2 * time.Second, ChangeInterval: 100 * time.Millisecond,
	})
}

// span is how long a fleet runs: the time given, and 20 times as long with QRT_SOAK=1.
func span(d time.Duration) time.Duration { return d * time.Duration(soak(1, 20)) }

// soak is how much of a long proof to run: all of it with QRT_SOAK=1 (make soak).
func soak(normally, all int) int {
	if os.Getenv("QRT_SOAK") == "1" {
		return all
	}
	return normally
}

// lease of the fleets' claims.
const lease = time.Second

// sleep waits, and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// TestFleet: 8 receivers in 4 processes, which are killed at random. One is cut off at
// times, answers are lost, requests are refused, and the server is killed: nothing that
// was completed is granted again.
func TestFleet(t *testing.T) {
	server := serve(t, &dynalite.Options{Data: t.TempDir()})
	cut, err := httpproxy.New(server.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cut.Close() }()
	refusal := httpproxy.Answer{
		Status: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		Body: []byte(`{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"too much"}`),
	}
	// On a slow machine all of that comes faster than anything is completed. It goes on when
	// something was.
	var completed atomic.Int64
	disturb := func(ctx context.Context) {
		for before := int64(0); sleep(ctx, time.Second); {
			now := completed.Load()
			if now == before {
				continue
			}
			before = now
			cut.Fail(httpproxy.Faults{Cut: true})
			server.Fail(httpproxy.Faults{Lost: 30, Refused: 30, Refusal: refusal})
			if !sleep(ctx, 700*time.Millisecond) {
				break
			}
			cut.Fail(httpproxy.Faults{})
			server.Fail(httpproxy.Faults{})
			if !sleep(ctx, 300*time.Millisecond) {
				break
			}
			if err := server.Kill(); err != nil {
				t.Error(err)
			}
			if !sleep(ctx, 200*time.Millisecond) {
				break
			}
			if err := server.Restart(); err != nil {
				t.Error(err)
			}
		}
		server.Fail(httpproxy.Faults{})
	}
	start := time.Now()
	got := storefleet.Run(t, storefleet.Options{
		Targets:   []string{server.URL(), server.URL(), server.URL(), cut.URL()},
		Receivers: 2, Lease: lease, For: span(3 * time.Minute), Kill: 2 * time.Second, Disturb: disturb,
		Until: func(r *storefleet.Result) bool {
			completed.Store(int64(r.Completed))
			return time.Since(start) > span(8*time.Second) && r.Completed > 200 && r.Failed > 0 && r.Killed >= 4
		},
	})
	t.Log(got)
	if len(got.Again) > 0 || got.Reporters > 0 || got.Completed == 0 || got.Failed == 0 {
		t.Errorf("%v: %v", got, got.Again)
	}
}

// TestFleetEmptied: the table is deleted and made again under a fleet. Every process
// reports it, and what is granted again is granted by answers of the new store.
func TestFleetEmptied(t *testing.T) {
	server := serve(t, nil)
	heard := make(chan struct{}) // of all processes
	begin := sync.OnceFunc(func() { close(heard) })
	got := storefleet.Run(t, storefleet.Options{
		Targets:   []string{server.URL(), server.URL(), server.URL(), server.URL()},
		Receivers: 2, Lease: lease, For: 5 * time.Minute,
		Until: func(r *storefleet.Result) bool {
			if r.Heard == 4 && r.Completed > 100 {
				begin()
			}
			return r.Reporters == 4
		},
		Disturb: func(ctx context.Context) {
			select {
			case <-heard:
				remake(t, server)
			case <-ctx.Done():
			}
		},
	})
	t.Log(got)
	if len(got.Again) > 0 || got.Reporters != 4 {
		t.Errorf("%v: %v; want a report of each of 4 processes", got, got.Again)
	}
}

// TestFleetFigures: what 8 receivers in 4 processes achieve together, and with a store
// that is 5 ms away.
func TestFleetFigures(t *testing.T) {
	server := serve(t, nil)
	for _, c := range []struct {
		senders int
		away    time.Duration
	}{{20, 0}, {1, 5 * time.Millisecond}, {1, 0}, {20, 5 * time.Millisecond}}[:soak(2, 4)] {
		remake(t, server)
		server.Fail(httpproxy.Faults{Delay: c.away})
		server.Counts()
		enough := max(10*c.senders, 100) * soak(1, 100)
		got := storefleet.Run(t, storefleet.Options{
			Targets:   []string{server.URL(), server.URL(), server.URL(), server.URL()},
			Receivers: 2, Lease: 10 * time.Second, For: 5 * time.Minute, Senders: c.senders, Once: true,
			Until: func(r *storefleet.Result) bool { return r.Completed >= enough },
		})
		n := server.Counts()
		t.Logf("%d senders, %v away: %v; %.0f completed a second; requests %v; %.0f %% of the writes met a change", c.senders, c.away, got,
			float64(got.Completed)/got.Took.Seconds(), n, 100*float64(n["UpdateItem 400"])/float64(max(n["UpdateItem"], 1)))
		if len(got.Again) > 0 || got.Completed < enough {
			t.Errorf("%v: %v", got, got.Again)
		}
	}
}

// TestCrash: the message of a receiver that crashed is refused once, and granted at the
// next delivery to a process that never saw its claim.
func TestCrash(t *testing.T) {
	t.Parallel()
	server := serve(t, nil)
	o := &dynamoreplay.Options{Endpoint: server.URL()}
	first, second, third := open(t, o), open(t, o), open(t, o)
	r := request(1, 1)
	r.Lease = lease
	begin := func(s replay.Store) replay.Claim {
		t.Helper()
		r.Token = replay.NewToken()
		c, err := s.Begin(t.Context(), "group", []replay.Request{r})
		if err != nil {
			t.Fatal(err)
		}
		return c[0]
	}
	if c := begin(first); c.Err != nil {
		t.Fatal(c.Err)
	}
	c := begin(second)
	if !errors.Is(c.Err, replay.ErrBusy) {
		t.Fatalf("%+v, want ErrBusy", c)
	}
	const busy = 3 * time.Second // for the machine that the test runs on
	if !sleep(t.Context(), time.Until(c.BusyUntil)+busy) {
		t.Fatal("the test ended")
	}
	if c := begin(third); c.Err != nil {
		t.Errorf("after %v: %v", c.BusyUntil, c.Err)
	}
}
