package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/driver"
)

// receiveOptions are the flags of receive.
type receiveOptions struct {
	max                  int
	all, follow, abandon bool
	body, yes            bool
	session              string
	nextSession          bool
	wait, delay          time.Duration
	group                string
}

func (a *app) receiveCommand() *cobra.Command {
	var o receiveOptions
	var wait, delay string
	c := &cobra.Command{
		Use:   "receive QUEUE",
		Short: "Receive messages, print them, and complete them",
		Long: `Receive takes one message (or --max, or --all waiting ones, or --follow), prints it,
and then completes it: it leaves the queue. With --abandon it goes back. At a terminal
receive asks first, unless --yes is given. To look at messages without taking them:
qrt peek.

A message that does not authenticate, is too old or was replayed is never
printed: it is dead-lettered, or given back, as the library does, and receive
says so. Plaintext is printed with a warning, or rejected, by --policy.

With --session or --next-session, and on brokers that have nothing else, it takes the
messages of a session in order, and renews its lock meanwhile. With --follow it stays
with the session that --session names; else it takes the next when one is idle for
--wait.

Receive makes no queue: one that does not exist is an error. With --follow it goes on
while the broker is away or its file is locked, until it is interrupted.

The exit code is 3 if there was no message, and 1 if all were rejected.`,
		Example: example(`
			qrt receive task-tactician
			qrt receive task-tactician --follow --json | jq .body
			qrt receive task-tactician --all --body > bodies.jsonl
			qrt receive task-tactician --session octo/hello:42 --abandon`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			switch {
			case o.max < 1:
				return usagef("--max must be at least 1")
			case o.follow && o.abandon:
				return usagef("--follow with --abandon would get the same messages again and again")
			case delay != "" && !o.abandon:
				return usagef("--delay needs --abandon")
			case o.session != "" && o.nextSession:
				return usagef("--session names a session, --next-session takes any: not both")
			}
			if o.wait, err = parseDuration(wait); err != nil || o.wait <= 0 {
				return usagef("--wait wants a duration such as 2s")
			}
			if delay != "" {
				if o.delay, err = parseDuration(delay); err != nil || o.delay < 0 {
					return usagef("--delay wants a duration such as 30s")
				}
			}
			return a.receive(cmd.Context(), args[0], o)
		},
	}
	f := c.Flags()
	f.IntVarP(&o.max, "max", "n", 1, "how many messages to take at most")
	f.BoolVar(&o.all, "all", false, "take messages until none comes within --wait")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on until interrupted")
	f.BoolVar(&o.abandon, "abandon", false, "give the messages back instead of completing them")
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	f.StringVar(&delay, "delay", "", "`duration` before an abandoned message comes again")
	f.BoolVar(&o.body, "body", false, "print bodies only, each ending a line")
	f.StringVar(&o.session, "session", "", "receive from this session only: its `ID`")
	f.BoolVar(&o.nextSession, "next-session", false, "receive from the next session that is free")
	f.StringVar(&o.group, "group", "", "`group` of the queue's receivers in the replay store (default: the queue's name)")
	f.StringVar(&wait, "wait", "2s", "`duration` to wait for a message")
	c.MarkFlagsMutuallyExclusive("max", "all", "follow")
	return c
}

// source is a receiver or a session.
type messages interface {
	Receive(ctx context.Context, max int) ([]*queue.Delivery, error)
}

// receiving is one run of receive.
type receiving struct {
	a         *app
	o         receiveOptions
	taken     int
	rejected  int
	unsettled []*queue.Delivery // to be abandoned at the end
	outage    outage
}

// outage is a time in which --follow cannot receive.
type outage struct{ wait time.Duration } // before the next try; 0: there is none

const (
	firstPause = time.Second
	lastPause  = 15 * time.Second // so that it goes on soon after the outage
)

// goesOn reports whether --follow goes on after an error: one that passes, such as a
// broker that is away, a file that is locked, or a session that was lost. It waits before
// it returns.
func (r *receiving) goesOn(ctx context.Context, err error) bool {
	passes := report(err).Transient || errors.Is(err, queue.ErrSessionLost)
	if !r.o.follow || !passes || ctx.Err() != nil {
		return false
	}
	if r.outage.wait == 0 {
		r.a.warn("going on until interrupted: " + err.Error())
	}
	r.outage.wait = min(max(firstPause, 2*r.outage.wait), lastPause)
	timer := time.NewTimer(r.outage.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *app) receive(ctx context.Context, name string, o receiveOptions) error {
	// A person may only want to look. A program that reads the output cannot be asked.
	if !o.abandon && !a.settings.json && a.errors.Terminal() && terminal(a.In) {
		if err := a.confirm(o.yes, fmt.Sprintf("Messages leave %s when they are printed (qrt peek looks without taking them). Go on?", display.Safe(name))); err != nil {
			return err
		}
	}
	r := &receiving{a: a, o: o}
	err := a.with(ctx, access{queues: []string{name}, rejected: r.reject, looks: true}, func(c *connection) (err error) {
		rx, err := c.receiver(ctx, name, queue.ReceiverOptions{Wait: o.wait, Group: o.group, NoAccounting: true})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.giveBack(ctx)) }()
		if o.session == "" && !o.nextSession && !rx.Capabilities().SessionOnly {
			return r.run(ctx, rx, !o.follow)
		}
		return r.sessions(ctx, rx)
	})
	switch {
	case o.follow && ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil
	case err != nil:
		return err
	case r.taken == 0 && r.rejected > 0:
		if a.settings.json {
			return errReported
		}
		return advise(fmt.Errorf("nothing was delivered: %s rejected", number(r.rejected, "", "message")), "what was dead-lettered: qrt dlq list %[1]s; what was given back waits: qrt peek %[1]s", display.Safe(name))
	case r.taken == 0:
		return nothingf("no message in %q within %s", display.Safe(name), display.Duration(o.wait))
	}
	return nil
}

// done reports whether enough was taken.
func (r *receiving) done() bool { return !r.o.all && !r.o.follow && r.taken+r.rejected >= r.o.max }

// run takes messages from src until there are enough; or, if untilIdle, until none comes.
func (r *receiving) run(ctx context.Context, src messages, untilIdle bool) error {
	for !r.done() {
		// One at a time: what is not printed stays in the queue.
		seen := r.taken + r.rejected
		batch, err := src.Receive(ctx, 1)
		if err != nil && !errors.Is(err, queue.ErrNoMessage) {
			if errors.Is(err, queue.ErrSessionLost) {
				return err // sessions takes it again, or the next
			}
			if r.goesOn(ctx, err) {
				continue
			}
			if errors.Is(err, queue.ErrReceivingPaused) {
				return advise(err, "is this the right key? See qrt doctor and qrt dlq list")
			}
			return err
		}
		r.outage = outage{}
		for _, d := range batch {
			if err := r.take(ctx, d); err != nil && !r.goesOn(ctx, err) {
				return err
			}
		}
		if untilIdle && r.taken+r.rejected == seen {
			return nil
		}
	}
	return nil
}

// take prints a message, and completes it once that is done.
func (r *receiving) take(ctx context.Context, d *queue.Delivery) error {
	m := newMessageReport(&d.Received)
	switch {
	case r.a.settings.json:
		writeJSON(r.a.Out, m)
	case r.o.body:
		end := "\n"
		if bytes.HasSuffix(d.Body, []byte(end)) {
			end = ""
		}
		body := string(d.Body)
		if r.a.screen.Terminal() {
			body = display.Block(body)
		}
		_, _ = fmt.Fprintf(r.a.Out, "%s%s", body, end) // a failure is looked for below
	default:
		m.show(r.a.screen)
	}
	r.taken++
	if r.o.abandon {
		r.unsettled = append(r.unsettled, d)
		return nil
	}
	// It is printed: an interrupt must not make it come again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := r.a.out.failure(); err != nil {
		return errors.Join(err, d.Abandon(ctx, 0)) // it was not printed
	}
	return d.Complete(ctx)
}

// giveBack abandons what was only looked at.
func (r *receiving) giveBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var errs []error
	// The last first, so that they stand as they did.
	for i := len(r.unsettled) - 1; i >= 0; i-- {
		if err := r.unsettled[i].Abandon(ctx, r.o.delay); err != nil && !errors.Is(err, queue.ErrLockLost) {
			errs = append(errs, err)
		}
	}
	r.unsettled = nil
	return errors.Join(errs...)
}

// reject tells of a message that was not delivered.
func (r *receiving) reject(e *queue.RejectedError) {
	r.rejected++
	if r.a.settings.json {
		writeJSON(r.a.Out, newRejectedReport(e))
		return
	}
	became := "dead-lettered"
	switch {
	case e.SettleErr != nil:
		became = "could not be " + string(e.Disposition)
	case e.Disposition == driver.Abandoned || e.Disposition == driver.Released:
		became = "given back"
	}
	r.a.errors.Line(fmt.Sprintf("%s message %s: %s (%s)", r.a.errors.Bad("rejected"), display.Safe(e.MessageID), became, e.Reason))
}
