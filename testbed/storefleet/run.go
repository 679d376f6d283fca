package storefleet

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options say how to run a fleet.
type Options struct {
	// Targets has the target of each process, for open of [Main]. Required.
	Targets []string
	// Receivers are the receivers of each process. Required.
	Receivers int
	// Lease is how long a claim lives. Required.
	Lease time.Duration
	// For is how long the fleet runs at most. Required.
	For time.Duration
	// Until ends it earlier. It is called with every event, never twice at a
	// time. Nil means that it runs for For.
	Until func(r *Result) bool
	// Senders is how many senders the messages are of. 0 means 4.
	Senders int
	// Once has the broker deliver each message once. Otherwise it delivers the
	// same messages to all receivers again and again, and a part of them is
	// released.
	Once bool
	// Kill has each process killed and started again, after it has worked for
	// that time on the mean. 0 means never.
	Kill time.Duration
	// Disturb runs meanwhile, and ends with its context. Nil means nothing.
	Disturb func(ctx context.Context)
}

// Result is what a fleet did.
type Result struct {
	// Granted and Completed are numbers of messages.
	Granted, Completed int
	// Again are the messages that were granted after they were completed, by a
	// store of the same ID.
	Again []string
	// ClaimsLost are claims that could not be ended by their owners.
	ClaimsLost int
	// Failed are calls that had no answer. Reporters are processes that reported
	// a lost memory.
	Failed, Reporters int
	// Why has the last failure that each process of Options.Targets reported.
	Why map[int]string
	// Killed are processes. Heard are those of Options.Targets that had answers.
	Killed, Heard int
	// Took is how long the fleet ran.
	Took time.Duration
}

// String names the numbers, and the last failures.
func (r *Result) String() string {
	s := fmt.Sprintf("%d completed of %d granted, %d granted again, %d claims lost, %d calls failed, %d processes that reported a lost memory, %d processes killed, %d heard of, in %v",
		r.Completed, r.Granted, len(r.Again), r.ClaimsLost, r.Failed, r.Reporters, r.Killed, r.Heard, r.Took.Round(time.Millisecond))
	for _, process := range slices.Sorted(maps.Keys(r.Why)) {
		s += fmt.Sprintf("\n  process %d failed last with %s", process, r.Why[process])
	}
	return s
}

// TB is the part of *testing.T that Run uses.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
}

// moment is an event of a message.
type moment struct {
	at int64 // Unix nanoseconds
	id string
}

// fleet collects events.
type fleet struct {
	until func(r *Result) bool
	end   context.CancelFunc

	mu        sync.Mutex // guards what follows
	heard     map[int]bool
	granted   map[string][]moment
	completed map[string][]moment
	result    Result
}

// Run runs a fleet.
func Run(t TB, o Options) *Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), o.For)
	defer cancel()
	f := &fleet{
		until: o.Until, end: cancel,
		heard: make(map[int]bool), granted: make(map[string][]moment), completed: make(map[string][]moment),
		result: Result{Why: make(map[int]string)},
	}
	start := time.Now()
	var wg sync.WaitGroup
	if o.Disturb != nil {
		wg.Go(func() { o.Disturb(ctx) })
	}
	for i := range o.Targets {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := f.process(ctx, &o, i); err != nil {
					t.Errorf("a process of the fleet: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	f.result.Took = time.Since(start)
	f.judge()
	return &f.result
}

// process runs one process until it is killed.
func (f *fleet) process(ctx context.Context, o *Options, number int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	life, cancel := context.WithCancel(ctx)
	defer cancel()
	works := func() {}
	if o.Kill > 0 {
		works = sync.OnceFunc(func() { time.AfterFunc(o.Kill/2+rand.N(o.Kill), cancel) }) //nolint:gosec // G404: a time to die
	}
	command := exec.CommandContext(life, self) //nolint:gosec // G204: this program; it is killed at the end of its life
	share := "0 0"
	if o.Once {
		share = fmt.Sprint(number*o.Receivers, " ", len(o.Targets)*o.Receivers)
	}
	command.Env = append(os.Environ(), targetVariable+"="+o.Targets[number], shareVariable+"="+share,
		fmt.Sprint(receiversVariable, "=", o.Receivers), fmt.Sprint(leaseVariable, "=", o.Lease), fmt.Sprint(sendersVariable, "=", cmp.Or(o.Senders, 4)))
	var said strings.Builder
	command.Stderr = &said
	input, err := command.StdinPipe()
	if err != nil {
		return err
	}
	defer func() { _ = input.Close() }()
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		if life.Err() != nil {
			return nil // the fleet ended just before
		}
		return err
	}
	read := f.read(number, out, works)
	err = command.Wait()
	switch {
	case life.Err() == nil:
		return fmt.Errorf("it ended: %w: %s", err, said.String())
	case read != nil:
		return read
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.result.Killed++
	return nil
}

// read reads the events of a process. The last line may be a part of one.
func (f *fleet) read(number int, out io.Reader, works func()) error {
	lines := bufio.NewScanner(out)
	reported := false
	for lines.Scan() {
		if why, ok := strings.CutPrefix(lines.Text(), "why "); ok {
			f.mu.Lock()
			f.result.Why[number] = why
			f.mu.Unlock()
			continue
		}
		var what, message, id, end string
		var at int64
		n, _ := fmt.Sscan(lines.Text(), &what, &message, &at, &id, &end)
		if n < 5 {
			continue
		}
		if what == "loss" && !reported {
			reported, what = true, "reporter"
		}
		if what != "failed" {
			works()
		}
		f.add(number, what, message, moment{at, id})
	}
	return lines.Err()
}

func (f *fleet) add(number int, what, message string, m moment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if what != "failed" {
		f.heard[number] = true
		f.result.Heard = len(f.heard)
	}
	switch what {
	case "granted":
		f.granted[message] = append(f.granted[message], m)
		f.result.Granted++
	case "completed":
		f.completed[message] = append(f.completed[message], m)
		f.result.Completed++
	case "lost":
		f.result.ClaimsLost++
	case "failed":
		f.result.Failed++
	case "reporter":
		f.result.Reporters++
	}
	if f.until != nil && f.until(&f.result) {
		f.end()
	}
}

// judge finds the messages that were granted after they were completed.
func (f *fleet) judge() {
	for message, completions := range f.completed {
		if grantedAgain(completions, f.granted[message]) {
			f.result.Again = append(f.result.Again, message)
		}
	}
}

func grantedAgain(completions, grants []moment) bool {
	for _, c := range completions {
		for _, g := range grants {
			if g.id == c.id && g.at > c.at {
				return true
			}
		}
	}
	return false
}
