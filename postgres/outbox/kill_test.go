package outbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/outbox"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
)

// tellingQueue says on standard output when the broker has confirmed a call, before the
// forwarder hears of it. With hang the forwarder never does.
type tellingQueue struct {
	driver.Queue
	hang bool
}

type telling struct {
	driver.Broker
	hang bool
}

func (b telling) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return tellingQueue{q, b.hang}, err
}

func (q tellingQueue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	r := q.Queue.Send(ctx, m)
	fmt.Println("sent")
	if q.hang {
		select {}
	}
	return r
}

// forwarderRole forwards from the outbox at one URL to the broker at another until its
// input ends.
func forwarderRole(in io.Reader, args []string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	box, err := outbox.Open(ctx, args[0], nil)
	if err != nil {
		return err
	}
	to, err := postgresqueue.Open(ctx, args[1], nil)
	if err != nil {
		return err
	}
	f, err := outbox.NewForwarder(ctx, box, telling{to, args[2] == "hang"}, orders, killOptions())
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return errors.Join(f.Run(ctx), box.Close(context.Background()), to.Close(context.Background()))
}

// killLock is how long the messages of a process that was killed stay locked.
const killLock = 900 * time.Millisecond

func killOptions() *outbox.ForwarderOptions {
	return &outbox.ForwarderOptions{
		Logger: slog.New(slog.DiscardHandler),
		Outage: &backoff.BreakerOptions{Failures: 1, Open: 10 * time.Millisecond, Successes: 1},
	}
}

// child is a forwarder in a process of its own.
type child struct {
	command *exec.Cmd
	input   io.Closer
	sent    chan struct{} // one for each call that the broker has confirmed, while there is room
	ended   chan struct{} // closed when its output has
}

func startForwarder(t *testing.T, from, to, how string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{command: exec.Command(self, from, to, how)} //nolint:gosec,noctx // G204: this test; kill ends it
	c.command.Env = append(os.Environ(), roleVariable+"=forwarder")
	c.command.Stderr = os.Stderr
	out, err := c.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if c.input, err = c.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.command.Start(); err != nil {
		t.Fatal(err)
	}
	c.sent, c.ended = make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(c.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			select {
			case c.sent <- struct{}{}:
			default:
			}
		}
	}()
	return c
}

// after waits until the broker has confirmed n calls, and reports false if the process
// ended before.
func (c *child) after(n int) bool {
	for range n {
		select {
		case <-c.sent:
		case <-c.ended:
			return false
		}
	}
	return true
}

// kill ends the process as a crash does.
func (c *child) kill(t *testing.T) {
	t.Helper()
	if err := c.command.Process.Kill(); err != nil {
		t.Error(err)
	}
	<-c.ended
	_ = c.input.Close()
	_ = c.command.Wait() // it was killed
}

// newTarget opens a broker in another schema, and a client of it with the fixture's keys.
func (x *fixture) newTarget() (rawURL string, q driver.Queue, r *queue.Receiver) {
	x.t.Helper()
	rawURL = x.server() + "?schema=" + x.schema + "_target"
	b, err := postgresqueue.Open(x.t.Context(), rawURL, nil)
	x.must(err)
	q, err = b.Open(x.t.Context(), orders, nil)
	x.must(err)
	o := queue.Strict(x.Keys, x.ReplayStore)
	o.Logger = slog.New(slog.DiscardHandler)
	client, err := queue.New(b, o)
	x.must(err)
	x.t.Cleanup(func() { _ = client.Close(context.Background()) })
	r, err = client.Receiver(x.t.Context(), orders, &queue.ReceiverOptions{Wait: 200 * time.Millisecond})
	x.must(err)
	return rawURL, q, r
}

// stored are the messages of a queue in order.
func (x *fixture) stored(q driver.Queue) (list []*driver.Delivery) {
	x.t.Helper()
	for cursor := ""; ; {
		page, next, err := q.Peek(x.t.Context(), cursor, 100)
		x.must(err)
		list = append(list, page...)
		if cursor = next; next == "" {
			return list
		}
	}
}

// TestKilledBetween: a forwarder that is killed between the send and the removal leaves a
// message that is sent again, under the same identity. It is handled once, and before the
// one behind it.
func TestKilledBetween(t *testing.T) {
	t.Parallel()
	x := newFixture(t, nil)
	target, q, r := x.newTarget()
	x.put(nil, &queue.Message{ID: "a", SessionID: "s"}, &queue.Message{ID: "b", SessionID: "s"})
	c := startForwarder(t, x.url(), target, "hang")
	if !c.after(1) {
		t.Fatal("the forwarder ended before it had sent")
	}
	c.kill(t)
	if st := x.until("left", func(driver.Stats) bool { return true }); drained(st) {
		t.Fatal("the outbox is empty: the message was removed before its sending was confirmed")
	}
	// Its locks end. Until then they outlast the stalls of a machine under load: a lock that ends
	// under a forwarder at work has it send once more.
	for _, statement := range []string{
		`UPDATE ` + x.schema + `.message SET due = now() WHERE token IS NOT NULL`,
		`UPDATE ` + x.schema + `.session SET until = now() WHERE until IS NOT NULL`,
	} {
		_, err := x.db.Exec(t.Context(), statement)
		x.must(err)
	}
	good := startForwarder(t, x.url(), target, "")
	defer good.kill(t)
	x.until("empty", drained)
	var ids, identities []string
	for _, d := range x.stored(q) {
		ids, identities = append(ids, d.ID), append(identities, identity(t, d.Body))
	}
	if !slices.Equal(ids, []string{"a", "a", "b"}) || identities[0] != identities[1] || identities[1] == identities[2] {
		t.Fatalf("the broker has %v with the identities %v, want a twice with one identity, then b", ids, identities)
	}
	if got := handled(t, r); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("handled %v, want a and b once", got)
	}
}

// handled receives everything, and returns the IDs of what was delivered.
func handled(t *testing.T, r *queue.Receiver) (ids []string) {
	t.Helper()
	for {
		d, err := r.ReceiveOne(t.Context())
		if errors.Is(err, queue.ErrNoMessage) {
			if st, err := r.Stats(t.Context()); err != nil || st.Ready+st.InFlight+st.Scheduled > 0 {
				continue
			}
			return ids
		}
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, d.ID)
		if err := d.Complete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFleetKilled: two forwarders of which one after the other is killed at random lose
// nothing, and reorder no session.
func TestFleetKilled(t *testing.T) {
	t.Parallel()
	const sessions = 4
	kills := soak(4, 100)
	x := newFixture(t, &postgresqueue.Options{Default: postgresqueue.QueueOptions{Lock: killLock, MaxDeliveries: -1}})
	target, q, r := x.newTarget()
	stop := make(chan struct{})
	var writers sync.WaitGroup
	counts := make([]int, sessions)
	for s := range sessions {
		writers.Go(func() { counts[s] = x.writeUntil(fmt.Sprint("s", s), stop) })
	}
	fleet := [2]*child{startForwarder(t, x.url(), target, ""), startForwarder(t, x.url(), target, "")}
	for n := range kills {
		i := n % 2
		if !fleet[i].after(1 + rand.IntN(20)) {
			t.Fatal("a forwarder ended by itself")
		}
		fleet[i].kill(t)
		fleet[i] = startForwarder(t, x.url(), target, "")
	}
	close(stop)
	writers.Wait()
	x.until("empty", drained)
	for _, c := range fleet {
		c.kill(t)
	}
	var ids []string
	for _, d := range x.stored(q) {
		ids = append(ids, d.ID)
	}
	got := firsts(ids)
	for s, n := range counts {
		x.inOrder(got, s, n)
	}
	t.Logf("%d messages, %d kills, %d copies", len(got), kills, len(ids)-len(got))
	once := handled(t, r)
	for s, n := range counts {
		x.inOrder(once, s, n)
	}
	if len(once) != len(got) {
		t.Errorf("handled %d messages, want %d", len(once), len(got))
	}
}

// inOrder wants the n messages of a session among ids, each once and in order.
func (x *fixture) inOrder(ids []string, session, n int) {
	x.t.Helper()
	prefix := fmt.Sprintf("s%d ", session)
	var want []string
	for i := range n {
		want = append(want, prefix+fmt.Sprint(i))
	}
	got := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !strings.HasPrefix(id, prefix) })
	if !slices.Equal(got, want) {
		x.t.Errorf("session %d: %v, want 0 to %d", session, got, n-1)
	}
}
