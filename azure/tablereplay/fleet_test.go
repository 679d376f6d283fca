package tablereplay_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/queue-runtime/queue/azure/tablereplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/azurite"
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
	o := &aztables.ClientOptions{}
	o.Transport = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	return tablereplay.NewSharedKey(ctx, target, credential(), table, &tablereplay.Options{
		Client: o, SweepInterval: 2 * time.Second, ChangeInterval: 100 * time.Millisecond,
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

func four(server *azurite.Server) []string {
	e := server.Endpoint()
	return []string{e, e, e, e}
}

// TestFleet: 8 receivers in 4 processes, which are killed at random. One is cut off at
// times, answers are lost, requests are refused, and the server is started again: nothing
// that was completed is granted again.
func TestFleet(t *testing.T) {
	server := serve(t)
	cut, err := httpproxy.New(server.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cut.Close() }()
	refusal := httpproxy.Answer{
		Status: http.StatusServiceUnavailable, Header: http.Header{"Content-Type": {"application/json"}, "X-Ms-Error-Code": {"ServerBusy"}},
		Body: []byte(`{"odata.error":{"code":"ServerBusy","message":{"lang":"en-US","value":"busy"}}}`),
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
			if err := server.Restart(); err != nil {
				t.Error(err)
			}
		}
		server.Fail(httpproxy.Faults{})
	}
	targets := four(server)
	start := time.Now()
	targets[3] = cut.URL() + "/" + azurite.Account
	got := storefleet.Run(t, storefleet.Options{
		Targets: targets, Receivers: 2, Lease: lease, For: span(3 * time.Minute), Kill: 2 * time.Second, Disturb: disturb,
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

// TestFleetKilledServer: azurite loses its last writes when it is killed, as a failover to
// a copy that lags behind does. Some process reports it.
func TestFleetKilledServer(t *testing.T) {
	server := serve(t)
	var completed atomic.Int64
	more := func(ctx context.Context, n int64) {
		for want := completed.Load() + n; completed.Load() < want && sleep(ctx, 20*time.Millisecond); {
		}
	}
	got := storefleet.Run(t, storefleet.Options{
		Targets: four(server), Receivers: 2, Lease: lease, For: 3 * time.Minute,
		Until: func(r *storefleet.Result) bool {
			completed.Store(int64(r.Completed))
			return r.Reporters > 0
		},
		Disturb: func(ctx context.Context) {
			for ctx.Err() == nil {
				more(ctx, 50)
				written(ctx, t, server.Data())
				more(ctx, 50)
				if ctx.Err() != nil {
					return
				}
				if err := server.Kill(); err != nil {
					t.Error(err)
				}
				if err := server.Restart(); err != nil {
					t.Error(err)
				}
			}
		},
	})
	t.Log(got)
	if got.Reporters == 0 || got.Completed == 0 {
		t.Errorf("%v: want a report", got)
	}
}

// written waits until a file is written.
func written(ctx context.Context, t *testing.T, name string) {
	modified := func() (m time.Time) {
		info, err := os.Stat(name)
		if err == nil {
			return info.ModTime()
		}
		if !errors.Is(err, os.ErrNotExist) { // not yet
			t.Error(err)
		}
		return m
	}
	for before := modified(); modified().Equal(before) && sleep(ctx, 20*time.Millisecond); {
	}
}

// TestFleetEmptied: the table is emptied under a fleet. Every process reports it.
func TestFleetEmptied(t *testing.T) {
	server := serve(t)
	heard := make(chan struct{}) // of all processes
	begin := sync.OnceFunc(func() { close(heard) })
	got := storefleet.Run(t, storefleet.Options{
		Targets: four(server), Receivers: 2, Lease: lease, For: 5 * time.Minute,
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
	server := serve(t)
	for _, c := range []struct {
		senders int
		away    time.Duration
	}{{20, 0}, {1, 5 * time.Millisecond}, {1, 0}, {20, 5 * time.Millisecond}}[:soak(2, 4)] {
		remake(t, server)
		server.Fail(httpproxy.Faults{Delay: c.away})
		server.Counts()
		enough := max(10*c.senders, 100) * soak(1, 100)
		got := storefleet.Run(t, storefleet.Options{
			Targets: four(server), Receivers: 2, Lease: 10 * time.Second, For: 5 * time.Minute, Senders: c.senders, Once: true,
			Until: func(r *storefleet.Result) bool { return r.Completed >= enough },
		})
		n := server.Counts()
		t.Logf("%d senders, %v away: %v; %.0f completed a second; requests %v; %.0f %% of the single writes met a change", c.senders, c.away, got,
			float64(got.Completed)/got.Took.Seconds(), n, 100*float64(n["PUT 412"])/float64(max(n["PUT"], 1)))
		if len(got.Again) > 0 || got.Completed < enough {
			t.Errorf("%v: %v", got, got.Again)
		}
	}
}

// TestCrash: the message of a receiver that crashed is refused once, and granted at the
// next delivery to a process that never saw its claim.
func TestCrash(t *testing.T) {
	t.Parallel()
	server := serve(t)
	o := &tablereplay.Options{}
	first, second, third := open(t, server, o), open(t, server, o), open(t, server, o)
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
