package memqueue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
)

func open(t testing.TB, p driver.Broker, name string) driver.Queue {
	t.Helper()
	q, err := p.Open(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func send(t testing.TB, q driver.Queue, m ...*driver.Message) {
	t.Helper()
	for i, r := range q.Send(t.Context(), m) {
		if r.Err != nil {
			t.Fatalf("Send of message %q: %v", m[i].ID, r.Err)
		}
	}
}

func message(id string) *driver.Message {
	return &driver.Message{ID: id, Body: []byte("body of " + id)}
}

func stateful(t testing.TB, s driver.Session) driver.StatefulSession {
	t.Helper()
	st, ok := s.(driver.StatefulSession)
	if !ok {
		t.Fatal("the session has no state")
	}
	return st
}

// take receives what is there now.
func take(t testing.TB, src driver.Source) []*driver.Delivery {
	t.Helper()
	d, err := src.Receive(t.Context(), 100, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ids are the IDs of what is there now, which is then completed.
func ids(t testing.TB, src driver.Source) string {
	t.Helper()
	var out []string
	for _, d := range take(t, src) {
		out = append(out, d.ID)
		settle(t, src, d, driver.Complete, 0)
	}
	return strings.Join(out, " ")
}

func settle(t testing.TB, src driver.Source, d *driver.Delivery, kind driver.SettleKind, delay time.Duration) {
	t.Helper()
	if err := src.Settle(t.Context(), []driver.Settlement{{Delivery: d, Kind: kind, Delay: delay}})[0]; err != nil {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]memqueue.QueueOptions{
		"Lock":          {Lock: -1},
		"TTL":           {TTL: -1},
		"Retention":     {Retention: -1},
		"DedupWindow":   {DedupWindow: -1},
		"MaxMessages":   {MaxMessages: -1},
		"MaxBytes":      {MaxBytes: -1},
		"MaxBody":       {MaxBody: -1},
		"MaxBatch":      {MaxBatch: -1},
		"MaxBatchBytes": {MaxBatchBytes: -1},
		"MaxAttributes": {MaxAttributes: -1},
		"a lock of 1µs": {Lock: time.Microsecond},
		"a lock of 13h": {Lock: 13 * time.Hour},
	} {
		b := memqueue.New(&memqueue.Options{Default: o, Queues: map[string]memqueue.QueueOptions{"declared": o}})
		for _, queue := range []string{"declared", "other"} {
			if _, err := b.Open(t.Context(), queue, nil); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("Open of queue %s with a bad %s: %v", queue, name, err)
			}
		}
		if err := b.Declare("third", o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Declare with a bad %s: %v", name, err)
		}
	}
	b := memqueue.New(nil)
	for name, o := range map[string]*driver.QueueOptions{
		"a lock of 1µs":   {Lock: time.Microsecond},
		"a negative lock": {Lock: -1},
	} {
		if _, err := b.Open(t.Context(), "q", o); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Open with %s: %v, want errors.ErrUnsupported", name, err)
		}
	}
	c := open(t, b, "q").Capabilities()
	if c.Lock != memqueue.DefaultLock || c.MaxDeliveries != memqueue.DefaultMaxDeliveries || c.MaxBatch != memqueue.DefaultMaxBatch || c.Dedup != driver.None {
		t.Errorf("the defaults are %+v", c)
	}
}

func TestDeclared(t *testing.T) {
	b := memqueue.New(&memqueue.Options{
		Queues:       map[string]memqueue.QueueOptions{"known": {MaxBody: 7}},
		DeclaredOnly: true,
	})
	if n := open(t, b, "known").Capabilities().MaxBody; n != 7 {
		t.Errorf("a declared queue has MaxBody %d, want 7", n)
	}
	if _, err := b.Open(t.Context(), "unknown", nil); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("Open of a queue that was not declared: %v", err)
	}
	if err := b.Declare("unknown", memqueue.QueueOptions{MaxBody: 8}); err != nil {
		t.Fatal(err)
	}
	if n := open(t, b, "unknown").Capabilities().MaxBody; n != 8 {
		t.Errorf("a queue declared later has MaxBody %d, want 8", n)
	}
	for _, name := range []string{"known", "unknown", "", "a\tb"} {
		if err := b.Declare(name, memqueue.QueueOptions{}); err == nil {
			t.Errorf("Declare(%q) succeeded", name)
		}
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Declare("late", memqueue.QueueOptions{}); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("Declare on a closed broker: %v", err)
	}
}

func TestNames(t *testing.T) {
	b := memqueue.New(nil)
	for _, name := range []string{"a", "orders.fifo", "größe/漢字 #1", strings.Repeat("n", driver.MaxName)} {
		open(t, b, name)
	}
	for _, name := range []string{"", "a\x00", "a\r", "\xff", strings.Repeat("n", driver.MaxName+1)} {
		if _, err := b.Open(t.Context(), name, nil); !errors.Is(err, driver.ErrInvalidName) {
			t.Errorf("Open(%q): %v, want an invalid name", name, err)
		}
	}
}

// Closing the broker ends every connection, and what it held can be looked at.
func TestBrokerClose(t *testing.T) {
	b := memqueue.New(nil)
	p := b.Connect()
	q := open(t, p, "q")
	send(t, q, message("m"))
	take(t, q)
	for range 2 {
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.Receive(t.Context(), 1, time.Minute); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("Receive: %v", err)
	}
	for name, p := range map[string]driver.Broker{"the broker": b, "its connection": p, "a new connection": b.Connect()} {
		if _, err := p.Open(t.Context(), "q", nil); !errors.Is(err, driver.ErrClosed) {
			t.Errorf("Open on %s: %v", name, err)
		}
	}
	all, err := b.Stored("q")
	if err != nil || len(all) != 1 || all[0].ID != "m" || all[0].Held || all[0].Count != 1 {
		t.Errorf("Stored = %+v, %v", all, err)
	}
}

func TestEndedContext(t *testing.T) {
	b := memqueue.New(nil)
	q := open(t, b, "q")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	calls := map[string]error{}
	_, calls["Open"] = b.Open(ended, "q", nil)
	_, calls["DeadLetters"] = q.DeadLetters(ended)
	_, _, calls["Peek"] = q.Peek(ended, "", 1)
	_, calls["Stats"] = q.Stats(ended)
	_, calls["AcceptSession"] = q.AcceptSession(ended, "s", time.Minute)
	s, err := q.AcceptSession(t.Context(), "s", 0)
	if err != nil {
		t.Fatal(err)
	}
	_, calls["RenewSession"] = s.RenewSession(ended)
	_, calls["State"] = stateful(t, s).State(ended)
	calls["Renew"] = q.Renew(ended, []*driver.Delivery{{}})[0].Err
	a := b.Attacker()
	_, calls["Attacker.Read"] = a.Read(ended, "q")
	_, _, calls["Attacker.DeadLetters"] = a.DeadLetters(ended, "q")
	calls["Attacker.Rewrite"] = a.Rewrite(ended, "q", func(m []driver.Message) []driver.Message { return m })
	for name, err := range calls {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", name, err)
		}
	}
}

// What was not received here cannot be settled here.
func TestForeignDelivery(t *testing.T) {
	b := memqueue.New(nil)
	one, two := open(t, b, "q"), open(t, b, "q")
	send(t, one, message("m"))
	d := take(t, one)[0]
	peeked, _, err := one.Peek(t.Context(), "", 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		src driver.Source
		d   *driver.Delivery
	}{
		"of another": {two, d},
		"peeked":     {one, peeked[0]},
		"nil":        {one, nil},
		"made up":    {one, &driver.Delivery{BrokerID: d.BrokerID, Receipt: "receipt"}},
	} {
		if err := c.src.Settle(t.Context(), []driver.Settlement{{Delivery: c.d, Kind: driver.Complete}})[0]; !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("Settle of a delivery %s: %v", name, err)
		}
		if err := c.src.Renew(t.Context(), []*driver.Delivery{c.d})[0].Err; !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("Renew of a delivery %s: %v", name, err)
		}
	}
	for name, s := range map[string]driver.Settlement{
		"no kind":          {Delivery: d},
		"a kind of 9":      {Delivery: d, Kind: 9},
		"a negative delay": {Delivery: d, Kind: driver.Abandon, Delay: -1},
	} {
		if err := one.Settle(t.Context(), []driver.Settlement{s})[0]; !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("Settle with %s: %v", name, err)
		}
	}
	settle(t, one, d, driver.Complete, 0)
}

func TestPeekCursor(t *testing.T) {
	q := open(t, memqueue.New(nil), "q")
	for i := range 5 {
		send(t, q, message(fmt.Sprint("m", i)))
	}
	got, next, err := q.Peek(t.Context(), "", 2)
	if err != nil || len(got) != 2 || next == "" {
		t.Fatalf("Peek = %d messages, %q, %v", len(got), next, err)
	}
	// What the cursor points at goes away.
	if s := ids(t, q); s != "m0 m1 m2 m3 m4" {
		t.Fatalf("received %s", s)
	}
	send(t, q, message("m5"))
	got, next, err = q.Peek(t.Context(), next, 2)
	if err != nil || len(got) != 1 || got[0].ID != "m5" || next != "" {
		t.Errorf("Peek = %d messages, %q, %v", len(got), next, err)
	}
	for _, c := range []struct {
		cursor string
		max    int
	}{{"x", 1}, {"", 0}, {"-1", 1}} {
		if _, _, err := q.Peek(t.Context(), c.cursor, c.max); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("Peek(%q, %d): %v", c.cursor, c.max, err)
		}
	}
}
