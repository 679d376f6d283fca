package redisreplay_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/redis/redisreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/faultproxy"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

// receiverVariable makes the test binary a process with two receivers on the store at
// that URL, until its input ends or it is killed.
const receiverVariable = "REDISREPLAY_TEST_RECEIVER"

const (
	processes     = 4
	receiversEach = 2
	fleetLease    = 2 * time.Second
)

// receivers runs the receivers of a process. Each line is about one message or one loss.
func receivers(rawURL string, in io.Reader, out io.Writer) error {
	ctx := context.Background()
	var s *redisreplay.Store
	for { // the server may be away
		var err error
		if s, err = redisreplay.Open(ctx, rawURL, nil); err == nil {
			break
		}
		if !retryable(err) {
			return err
		}
	}
	lines := make(chan string, 64)
	var mu sync.Mutex
	var stamp replay.Stamp
	see := func(x replay.Stamp) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case stamp.ID != [16]byte{} && x.ID != stamp.ID:
			lines <- "loss\n"
		case x.Change < stamp.Change:
			return
		}
		stamp = x
	}
	for range receiversEach {
		go func() {
			for {
				receive(s, see, lines)
			}
		}()
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(0) // as a crash
	}()
	_, _ = fmt.Fprint(out, "ready\n")
	for line := range lines {
		if _, err := fmt.Fprint(out, line); err != nil {
			return err
		}
	}
	return nil
}

func retryable(err error) bool {
	return !errors.Is(err, redisreplay.ErrEviction) && !errors.Is(err, redisreplay.ErrNotDurable)
}

// receive handles a batch of messages. Which ones a broker delivers moves on with time, so
// that all processes meet on the same ones, again and again.
func receive(s replay.Store, see func(replay.Stamp), lines chan<- string) {
	ctx := context.Background()
	newest := uint64(time.Now().UnixMilli()-streamOpenedAll) / 4 //nolint:gosec // G115: after that
	var batch []replay.Request
	picked := make(map[uint64]bool)
	for range 8 {
		n := newest + 1000 - rand.Uint64N(400) //nolint:gosec // G404: traffic, not a secret
		if picked[n] {
			continue
		}
		picked[n] = true
		r := message(byte(n%3), n)
		r.ID.Stream = [16]byte{1: 1, 15: byte(n % 3)}
		r.Lease, r.Previous, r.Settled = fleetLease, 0, 0
		batch = append(batch, r)
	}
	asked := time.Now().UnixNano()
	c, err := s.Begin(ctx, group, batch)
	if err != nil {
		return // the broker delivers them again
	}
	var f []replay.Finish
	var report strings.Builder
	for i := range c {
		see(c[i].Stamp)
		if c[i].Err == nil {
			fmt.Fprintf(&report, "granted %d %x %d\n", batch[i].ID.Sequence, batch[i].Token[:], asked)
			f = append(f, replay.Finish{ID: batch[i].ID, Token: batch[i].Token, Kind: replay.Consumed})
		}
	}
	lines <- report.String()
	if len(f) == 0 {
		return
	}
	// The same call until it is answered: as long as it is not, nothing is completed.
	for range 5 {
		got, err := s.Finish(ctx, group, f)
		if err != nil {
			continue
		}
		report.Reset()
		for i := range got {
			see(got[i].Stamp)
			if got[i].Err == nil {
				fmt.Fprintf(&report, "completed %d %x %d\n", f[i].ID.Sequence, f[i].Token[:], time.Now().UnixNano())
			}
		}
		lines <- report.String()
		return
	}
}

// streamOpenedAll is the same in all processes.
const streamOpenedAll = 1_700_000_000_000

// event is what a process said about a message.
type event struct {
	token string
	at    int64
}

// fleet is processes with receivers on one store.
type fleet struct {
	t *testing.T

	mu        sync.Mutex // guards what follows
	granted   map[string][]event
	completed map[string][]event
	losses    map[int]int  // by process
	working   map[int]bool // processes that completed something
}

func newFleet(t *testing.T) *fleet {
	return &fleet{t: t, granted: make(map[string][]event), completed: make(map[string][]event), losses: make(map[int]int), working: make(map[int]bool)}
}

// start starts a process and returns what kills it.
func (f *fleet) start(n int, rawURL string) (kill func()) {
	f.t.Helper()
	self, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command(self) //nolint:noctx // killed below
	cmd.Env = append(os.Environ(), receiverVariable+"="+rawURL)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			f.take(n, lines.Text())
		}
		_ = cmd.Wait()
	}()
	return sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = in.Close()
		<-done
	})
}

// completedSome is for eventually: nil once a process has completed something. On a slow machine
// that can be after all faults.
func (f *fleet) completedSome() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.completed) == 0 {
		return errors.New("nothing was completed")
	}
	return nil
}

func (f *fleet) take(process int, line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var what, message string
	var e event
	if strings.HasPrefix(line, "loss") {
		f.losses[process]++
	}
	if n, _ := fmt.Sscan(line, &what, &message, &e.token, &e.at); n != 4 {
		return // not about a message, or the last words of a killed process
	}
	switch what {
	case "granted":
		f.granted[message] = append(f.granted[message], e)
	case "completed":
		f.working[process] = true
		f.completed[message] = append(f.completed[message], e)
	}
}

// check holds what the processes said against what the store promises. It returns how
// many messages were completed, and how many deliveries ended without an outcome.
func (f *fleet) check() (completed, lost int) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for message, grants := range f.granted {
		done := f.completed[message]
		if len(done) > 1 {
			f.t.Errorf("message %s was completed %d times", message, len(done))
		}
		for _, d := range done {
			completed++
			for _, g := range grants {
				if g.token != d.token && g.at > d.at {
					f.t.Errorf("message %s was handled again after it was completed", message)
				}
			}
		}
		// Each delivery beyond the first has another one as its reason that ended without
		// an outcome.
		open := len(grants) - len(done)
		lost += open
		if extra := len(grants) - 1; extra > open {
			f.t.Errorf("message %s was handled %d times, and %d of these had no outcome", message, len(grants), open)
		}
	}
	return completed, lost
}

func span(short time.Duration) time.Duration {
	if os.Getenv("QRT_SOAK") == "1" {
		return 200 * short
	}
	return short
}

// TestFleet: 8 receivers in 4 processes. Processes are killed, the store is killed and
// started again, and processes are cut off from it: nothing that was completed is handled
// again, and a crash costs one delivery. A few seconds; some minutes with QRT_SOAK=1.
func TestFleet(t *testing.T) {
	server := redispeer.New(t, durable)
	f := newFleet(t)
	proxies, kills := make([]*faultproxy.TCP, processes), make([]func(), processes)
	start := func(i int) {
		kills[i] = f.start(i, "redis://"+proxies[i].Addr()+"/?timeout=1s&replica_timeout=200ms")
	}
	for i := range proxies {
		var err error
		if proxies[i], err = faultproxy.NewTCP(server.Address(), nil, nil); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = proxies[i].Close() }()
		start(i)
		defer func() { kills[i]() }()
	}
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for end, n := time.Now().Add(span(4*time.Second)), 0; time.Now().Before(end); n++ {
		<-tick.C
		i := rand.IntN(processes) //nolint:gosec // G404: faults, not secrets
		switch n % 3 {
		case 0:
			kills[i]()
			start(i)
		case 1:
			restart(t, server)
		case 2:
			proxies[i].Stall()
			<-tick.C
			proxies[i].Resume()
		}
	}
	eventually(t, f.completedSome)
	for _, kill := range kills {
		kill()
	}
	completed, lost := f.check()
	if completed == 0 || len(f.losses) > 0 {
		t.Errorf("%d messages were completed, losses: %v", completed, f.losses)
	}
	t.Logf("%d messages were completed, %d deliveries had no outcome", completed, lost)
}

// TestFleetFailover: the same with a primary that is killed and a promoted replica.
func TestFleetFailover(t *testing.T) {
	primary := redispeer.New(t, nil)
	f := newFleet(t)
	front, err := faultproxy.NewTCP(primary.Address(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = front.Close() }()
	replica := redispeer.Replica(t, primary, nil)
	var kills []func()
	for i := range processes {
		kills = append(kills, f.start(i, "redis://"+front.Addr()+"/?timeout=1s&replica_timeout=200ms&fsync=never"))
		defer kills[i]()
	}
	for range 3 {
		wait(t, span(time.Second))
		if err := primary.Kill(); err != nil {
			t.Fatal(err)
		}
		if _, err := replica.Do(t.Context(), "REPLICAOF", "NO", "ONE"); err != nil {
			t.Fatal(err)
		}
		next := redispeer.Replica(t, replica, nil) // before anything is confirmed by one server alone
		front.Redirect(replica.Address())
		primary, replica = replica, next
	}
	wait(t, span(time.Second))
	eventually(t, f.completedSome)
	for _, kill := range kills {
		kill()
	}
	completed, lost := f.check()
	if completed == 0 || len(f.losses) > 0 {
		t.Errorf("%d messages were completed, losses: %v", completed, f.losses)
	}
	t.Logf("%d messages were completed over 3 failovers, %d deliveries had no outcome", completed, lost)
}

// TestFleetFlushed: every process of a fleet reports that the memory was lost.
func TestFleetFlushed(t *testing.T) {
	server := redispeer.New(t, nil)
	f := newFleet(t)
	for i := range processes {
		kill := f.start(i, server.URL()+"?fsync=never")
		defer kill()
	}
	working := func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.working) < processes {
			return errors.New("not all processes have completed something")
		}
		return nil
	}
	eventually(t, working)
	if _, err := server.Do(t.Context(), "FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.losses) < processes {
			return fmt.Errorf("%d of %d processes reported a loss", len(f.losses), processes)
		}
		return nil
	})
}

// wait lets a fleet work for a while.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}
