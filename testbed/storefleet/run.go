package storefleet

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Options say how to run a fleet.
type Options struct {
	// Targets has the target of each process, for open of [Main]. Required.
	Targets []string
	// Receivers are those of each process. Required.
	Receivers int
	// Lease is how long a claim lives. Required.
	Lease time.Duration
	// For is how long the fleet runs. Required.
	For time.Duration
	// Senders is how many senders the messages are of. 0 means 4.
	Senders int
	// Once has the broker deliver each message once. Otherwise it delivers the
	// same messages to all receivers again and again, and a part of them is
	// released.
	Once bool
	// Kill has each process killed and started again, after that time on the
	// mean. 0 means never.
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
	// Killed are processes.
	Killed int
}

// String names the numbers.
func (r *Result) String() string {
	return fmt.Sprintf("%d completed of %d granted, %d granted again, %d claims lost, %d calls failed, %d processes that reported a lost memory, %d processes killed",
		r.Completed, r.Granted, len(r.Again), r.ClaimsLost, r.Failed, r.Reporters, r.Killed)
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
	mu        sync.Mutex // guards what follows
	granted   map[string][]moment
	completed map[string][]moment
	result    Result
}

// Run runs a fleet.
func Run(t TB, o Options) *Result {
	t.Helper()
	f := &fleet{granted: make(map[string][]moment), completed: make(map[string][]moment)}
	ctx, cancel := context.WithTimeout(context.Background(), o.For)
	defer cancel()
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
	f.judge()
	return &f.result
}

// process runs one process until it is killed.
func (f *fleet) process(ctx context.Context, o *Options, number int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	life, cancel := ctx, context.CancelFunc(func() {})
	if o.Kill > 0 {
		life, cancel = context.WithTimeout(ctx, o.Kill/2+rand.N(o.Kill)) //nolint:gosec // G404
	}
	defer cancel()
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
		return err
	}
	read := f.read(out)
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
func (f *fleet) read(out io.Reader) error {
	lines := bufio.NewScanner(out)
	reported := false
	for lines.Scan() {
		var what, message, id, end string
		var at int64
		n, _ := fmt.Sscan(lines.Text(), &what, &message, &at, &id, &end)
		if n < 5 {
			continue
		}
		if f.add(what, message, moment{at, id}); what == "loss" && !reported {
			reported = true
			f.add("reporter", message, moment{})
		}
	}
	return lines.Err()
}

func (f *fleet) add(what, message string, m moment) {
	f.mu.Lock()
	defer f.mu.Unlock()
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
