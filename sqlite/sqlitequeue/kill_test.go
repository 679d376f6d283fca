package sqlitequeue_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// In these tests producers and consumers are processes that are killed. All of
// them write what they are about to do, and what came of it, as lines into one
// pipe, which keeps the order in which they were written:
//
//	NAME send ID SESSION NUMBER   before Send, NUMBER ascending in a session
//	NAME sent ID                  Send has confirmed it
//	NAME claim                    before Receive
//	NAME got ID SESSION NUMBER COUNT
//	NAME claimed                  after the last got, also when there was none
//	NAME complete ID              before Settle
//	NAME completed ID             Settle has confirmed it
//	NAME lost ID                  the lock was over
const killLock = 500 * time.Millisecond

func openKill(path string) (*sqlitequeue.Broker, driver.Queue, error) {
	ctx := context.Background()
	b, err := sqlitequeue.Open(ctx, path, nil)
	if err != nil {
		return nil, nil, err
	}
	q, err := b.Open(ctx, "kill", nil)
	return b, q, err
}

// untilEnd is closed when in ends.
func untilEnd(in io.Reader) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(ended)
	}()
	return ended
}

// producerRole sends until its input ends. Its arguments are the path, its name,
// and the first number.
func producerRole(in io.Reader, _ io.Writer, args []string) error {
	b, q, err := openKill(args[0])
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ended, log := untilEnd(in), os.NewFile(3, "log")
	for n := first; ; n++ {
		select {
		case <-ended:
			return b.Close(context.Background())
		default:
		}
		if err := produce(q, args[1], n, log); err != nil {
			return err
		}
	}
}

// produce sends the n-th message of a producer.
func produce(q driver.Queue, name string, n int, log io.Writer) error {
	id := fmt.Sprintf("%s.%d", name, n)
	m := &driver.Message{ID: id, SessionID: sessionOf(id), Body: make([]byte, bodySize)}
	fmt.Fprintf(log, "%s send %s %q %d\n", name, id, m.SessionID, n)
	if r := q.Send(context.Background(), []*driver.Message{m}); r[0].Err != nil {
		return r[0].Err
	}
	fmt.Fprintf(log, "%s sent %s\n", name, id)
	return nil
}

// consumerRole receives and completes until its input ends.
func consumerRole(in io.Reader, _ io.Writer, args []string) error {
	b, q, err := openKill(args[0])
	if err != nil {
		return err
	}
	ended, log := untilEnd(in), os.NewFile(3, "log")
	for {
		select {
		case <-ended:
			return b.Close(context.Background())
		default:
		}
		if _, err := consume(q, args[1], log); err != nil {
			return err
		}
	}
}

// consume receives once and completes what came.
func consume(q driver.Queue, name string, log io.Writer) (int, error) {
	ctx := context.Background()
	fmt.Fprintf(log, "%s claim\n", name)
	got, err := q.Receive(ctx, 2, time.Second)
	if err != nil {
		return 0, err
	}
	for _, d := range got {
		number := d.ID[strings.LastIndexByte(d.ID, '.')+1:]
		fmt.Fprintf(log, "%s got %s %q %s %d\n", name, d.ID, d.SessionID, number, d.Count)
	}
	fmt.Fprintf(log, "%s claimed\n", name)
	for _, d := range got {
		fmt.Fprintf(log, "%s complete %s\n", name, d.ID)
		switch err := q.Settle(ctx, []driver.Settlement{{Delivery: d, Kind: driver.Complete}})[0]; driver.KindOf(err) {
		case driver.LockLost:
			fmt.Fprintf(log, "%s lost %s\n", name, d.ID)
		default:
			if err != nil {
				return 0, err
			}
			fmt.Fprintf(log, "%s completed %s\n", name, d.ID)
		}
	}
	return len(got), nil
}

// TestKill kills in a few rounds, in 500 with QRT_SOAK=1.
func TestKill(t *testing.T) {
	t.Parallel()
	killRounds(t, soak(5, 500))
}

func BenchmarkKill(b *testing.B) {
	for range b.N {
		began := time.Now()
		l := killRounds(b, 100)
		b.ReportMetric(float64(l.kills["send"]), "kills-in-send")
		b.ReportMetric(float64(l.kills["claim"]), "kills-in-claim")
		b.ReportMetric(float64(l.kills["complete"]), "kills-in-complete")
		b.ReportMetric(float64(l.kills[""]), "kills-between")
		b.ReportMetric(float64(len(l.sent)), "sent")
		b.ReportMetric(float64(len(l.completed)), "completed")
		b.ReportMetric(time.Since(began).Seconds(), "s")
	}
}

// killRounds runs two producers and two consumers, and kills one of them with
// SIGKILL in each round, while the pipe says that it has begun a send or a claim
// and does not say that it has ended. Kills in a settlement, and those that came
// too late, come on top.
func killRounds(tb testing.TB, rounds int) *ledger {
	path := filepath.Join(tb.TempDir(), "q.db")
	l := newLedger(tb)
	b, q, err := openKill(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := b.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	}()
	if err := b.Declare(context.Background(), "kill", &sqlitequeue.QueueOptions{Lock: killLock, MaxDeliveries: -1}); err != nil {
		tb.Fatal(err)
	}
	if err := q.Close(context.Background()); err != nil {
		tb.Fatal(err)
	}

	read, write, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	l.lines = bufio.NewScanner(read)
	// So many that the queue is never empty.
	if q, err = b.Open(context.Background(), "kill", nil); err != nil {
		tb.Fatal(err)
	}
	for n := range 100 + 5*rounds {
		if err := produce(q, "p9", n, write); err != nil {
			tb.Fatal(err)
		}
		for l.read().verb != "sent" {
		}
	}

	names := []string{"p0", "p1", "c0", "c1"}
	running := make(map[string]*process)
	launch := func(name string) {
		args := []string{path, name}
		role := "consumer"
		if name[0] == 'p' {
			role = "producer"
			args = append(args, strconv.Itoa(l.next[name]))
		}
		running[name] = start(tb, role, func(c *exec.Cmd) { c.ExtraFiles = []*os.File{write} }, args...)
	}
	for _, name := range names {
		launch(name)
	}
	for l.round = 1; l.round <= rounds; {
		victim := names[rand.IntN(len(names))]
		for {
			event := l.read()
			if event.name == victim && (event.verb == "send" || event.verb == "claim" || event.verb == "complete" && rand.IntN(4) == 0) {
				break
			}
		}
		// Real time: the victim is another process; the kill comes anywhere from
		// before the transaction to its end.
		time.Sleep(rand.N(4 * time.Millisecond))
		running[victim].kill()
		// What it has written before it died comes before this line.
		fmt.Fprintf(write, "parent mark %d\n", l.round)
		for l.read().verb != "mark" {
		}
		l.killed(victim)
		launch(victim)
	}
	for _, name := range names {
		p := running[name]
		go func() { // the pipe must be read meanwhile
			p.stop()
			fmt.Fprintf(write, "parent stopped %s\n", name)
		}()
	}
	for left := len(names); left > 0; {
		if l.read().verb == "stopped" {
			left--
		}
	}
	// The rest.
	last, err := b.Open(context.Background(), "kill", nil)
	if err != nil {
		tb.Fatal(err)
	}
	for empty := 0; empty < 2; {
		n, err := consume(last, "last", write)
		if err != nil {
			tb.Fatal(err)
		}
		if n == 0 {
			empty++
		} else {
			empty = 0
		}
		for {
			if e := l.read(); e.name == "last" && e.verb == "claimed" {
				break
			}
		}
	}
	fmt.Fprintln(write, "parent mark end")
	for l.read().verb != "mark" {
	}
	l.finish(b, last)
	return l
}
