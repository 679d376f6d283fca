package sqlitequeue_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// TestRetention lets messages, dead letters, states of sessions and known IDs
// grow old while no call is made.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "q.db")
		f := open(t, path, nil)
		ctx := t.Context()
		err := f.broker.Declare(ctx, "r", &sqlitequeue.QueueOptions{
			Retention: time.Hour, DeadLetterRetention: 2 * time.Hour, DedupWindow: 5 * time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		q, err := f.broker.Open(ctx, "r", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.Capabilities().Retention; got != time.Hour {
			t.Errorf("Capabilities.Retention is %v", got)
		}
		short, long, later := message(1), message(2), message(3)
		short.TTL, long.TTL = 10*time.Minute, 3*time.Hour
		later.NotBefore = time.Now().Add(30 * time.Minute)
		for _, r := range q.Send(ctx, []*driver.Message{short, long, later}) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		s, err := q.AcceptSession(ctx, "s", 0)
		if err == nil {
			err = s.(driver.StatefulSession).SetState(ctx, []byte("state"))
		}
		if err == nil {
			err = s.Close(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		count := func(after, dead, states, known string) {
			t.Helper()
			for what, want := range map[string]string{
				"messages WHERE queue > 0": after, "messages WHERE queue < 0": dead, "sessions": states, "dedup": known,
			} {
				if got := rows(t, path, "SELECT count(*) FROM "+what); got[0] != want {
					t.Errorf("%s rows in %s, want %s", got[0], what, want)
				}
			}
			holds(t, path)
		}
		count("3", "0", "1", "3")
		time.Sleep(12 * time.Minute) // in a bubble
		count("2", "1", "1", "0")
		time.Sleep(50 * time.Minute)
		count("1", "2", "0", "0")
		time.Sleep(30 * time.Minute)
		count("0", "3", "0", "0")
		for _, reason := range rows(t, path, "SELECT DISTINCT reason FROM messages") {
			if reason != "expired" {
				t.Errorf("a dead letter has the reason %q", reason)
			}
		}
		time.Sleep(3 * time.Hour)
		count("0", "0", "0", "0")
	})
}

// TestShrink: the room of a backlog is given back.
func TestShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, f, full := drained(t)
		time.Sleep(time.Minute) // in a bubble
		after := size(t, f, path)
		t.Logf("the file had %d MiB, it has %d KiB", full>>20, after>>10)
		if full < 20<<20 || after > 17<<20 {
			t.Errorf("the file had %d bytes and has %d", full, after)
		}
		holds(t, path)
	})
}

// TestShrinkAtClose: a program that ends at once gives the room back, too.
func TestShrinkAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, f, full := drained(t)
		if err := f.broker.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := size(t, f, path); full < 20<<20 || after > 17<<20 {
			t.Errorf("the file had %d bytes and has %d", full, after)
		}
		holds(t, path)
	})
}

// drained has had a backlog of 24 MiB. It returns the size of the file at its
// peak.
func drained(t *testing.T) (path string, f *fixture, full int64) {
	t.Helper()
	path, f = openNormal(t)
	var list []*driver.Message
	for n := range 300 {
		list = append(list, &driver.Message{ID: fmt.Sprint(n), Body: make([]byte, 80<<10)})
	}
	f.sendAll(list...)
	full = size(t, f, path)
	for {
		got, err := f.queue.Receive(t.Context(), 100, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			return path, f, full
		}
		var done []driver.Settlement
		for _, d := range got {
			done = append(done, driver.Settlement{Delivery: d, Kind: driver.Complete})
		}
		for _, err := range f.queue.Settle(t.Context(), done) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// size is that of the file once the log has been moved into it.
func size(t *testing.T, f *fixture, path string) int64 {
	t.Helper()
	if _, err := attack(t, path).Exec(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestWake measures how soon a call that waits gets a message that its own
// broker, and another one, has sent.
func TestWake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "q.db")
	own, other := open(t, path, nil), open(t, path, nil)
	for name, sender := range map[string]*fixture{"its own broker": own, "another": other} {
		var worst, sum time.Duration
		const rounds = 10
		for n := range rounds {
			sent := make(chan time.Time, 1)
			go func() {
				time.Sleep(100 * time.Millisecond) // real time: so long that looking has become rare
				if err := sender.send(n); err != nil {
					t.Error(err)
				}
				sent <- time.Now()
			}()
			got, err := own.queue.Receive(t.Context(), 1, 10*time.Minute)
			if err != nil || len(got) != 1 {
				t.Fatalf("%d messages, %v", len(got), err)
			}
			took := time.Since(<-sent)
			worst, sum = max(worst, took), sum+took
			if err := own.queue.Settle(t.Context(), []driver.Settlement{{Delivery: got[0], Kind: driver.Complete}})[0]; err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("sent by %s: received %s after the confirmation on average, %s at worst", name, sum/rounds, worst)
		if worst > time.Minute { // the end of the wait is far: a machine under load is slow, too
			t.Errorf("sent by %s: received after %s", name, worst)
		}
	}
}

func TestDeclare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "q.db")
	ctx := t.Context()
	f := open(t, path, &sqlitequeue.Options{Default: sqlitequeue.QueueOptions{Lock: time.Minute, MaxDeliveries: -1}})
	if c := f.queue.Capabilities(); c.Lock != time.Minute || c.MaxDeliveries != 0 || c.Retention != sqlitequeue.DefaultRetention {
		t.Errorf("made on demand: %+v", c)
	}
	// Settings lie in the file: another broker's defaults mean nothing to it.
	b, err := sqlitequeue.Open(ctx, path, &sqlitequeue.Options{MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	want := func(lock time.Duration, deliveries int, o *driver.QueueOptions) {
		t.Helper()
		q, err := b.Open(ctx, "q", o)
		if err != nil {
			t.Fatal(err)
		}
		if c := q.Capabilities(); c.Lock != lock || c.MaxDeliveries != deliveries {
			t.Errorf("lock %s, %d deliveries; want %s, %d", c.Lock, c.MaxDeliveries, lock, deliveries)
		}
	}
	want(time.Minute, 0, nil)
	want(time.Second, 0, &driver.QueueOptions{Lock: time.Second})
	if err := b.Declare(ctx, "q", &sqlitequeue.QueueOptions{Lock: 2 * time.Second, MaxDeliveries: 7}); err != nil {
		t.Fatal(err)
	}
	want(2*time.Second, 7, nil)
	if err := b.Declare(ctx, "p", nil); err != nil {
		t.Fatal(err)
	}
	if names, err := b.Queues(ctx); err != nil || fmt.Sprint(names) != "[p q]" {
		t.Errorf("Queues: %v, %v", names, err)
	}
	if _, err := b.Open(ctx, "missing", nil); driver.KindOf(err) != driver.NotFound {
		t.Errorf("a queue that does not exist: %v", err)
	}
	for _, o := range []sqlitequeue.QueueOptions{
		{Lock: -1}, {Lock: time.Nanosecond}, {Lock: 24 * time.Hour}, {Retention: -1}, {DeadLetterRetention: -1}, {DedupWindow: -1}, {MaxMessages: -1}, {MaxBody: -1}, {MaxBody: 1 << 30},
	} {
		if err := b.Declare(ctx, "q", &o); err == nil {
			t.Errorf("Declare(%+v): no error", o)
		}
	}
	for _, o := range []sqlitequeue.Options{{Synchronous: 9}, {MaxBytes: -1}, {MaxBytes: 1}, {LockTimeout: -1}, {Default: sqlitequeue.QueueOptions{Lock: -1}}} {
		if _, err := sqlitequeue.Open(ctx, path, &o); err == nil {
			t.Errorf("Open(%+v): no error", o)
		}
	}
	for _, o := range []driver.QueueOptions{{Lock: time.Nanosecond}, {Lock: -1}} {
		if _, err := b.Open(ctx, "q", &o); err == nil {
			t.Errorf("Open(%+v): no error", o)
		}
	}
}
