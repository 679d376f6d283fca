package memqueue_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
)

// What is stored can be read and changed, past every check.
func TestRewrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := with(memqueue.QueueOptions{MaxMessages: 3, DedupWindow: time.Minute, MaxBody: 20})
		q := open(t, b, "q")
		later := message("later")
		later.NotBefore = time.Now().Add(time.Hour)
		send(t, q, message("held"), message("waiting"), later)
		locked, err := q.Receive(t.Context(), 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		before, err := b.Stored("q")
		if err != nil || len(before) != 3 || !before[0].Held || before[0].Count != 1 || before[1].Held || string(before[1].Body) != "body of waiting" {
			t.Fatalf("Stored = %+v, %v", before, err)
		}
		before[1].Body[0] = 'x' // a copy
		err = b.Rewrite("q", func(all []memqueue.Stored) []memqueue.Stored {
			if len(all) != 2 || all[0].ID != "waiting" || all[1].ID != "later" || string(all[0].Body) != "body of waiting" {
				t.Errorf("Rewrite shows %+v", all)
			}
			replay := all[0]
			replay.BrokerID = ""
			all[0].Count = 6
			all[1].NotBefore = time.Time{}
			return append(all, replay, memqueue.Stored{Message: driver.Message{Body: make([]byte, 100)}})
		})
		if err != nil {
			t.Fatal(err)
		}
		got := take(t, q)
		if len(got) != 4 {
			t.Fatalf("received %d messages", len(got))
		}
		if d := got[0]; d.ID != "waiting" || d.Count != 7 || d.BrokerID != before[1].BrokerID {
			t.Errorf("received %s, count %d, BrokerID %s", d.ID, d.Count, d.BrokerID)
		}
		if d := got[2]; d.ID != "waiting" || d.Count != 1 || d.BrokerID == before[1].BrokerID {
			t.Errorf("received %s, count %d, BrokerID %s", d.ID, d.Count, d.BrokerID)
		}
		if d := got[3]; d.ID != "" || len(d.Body) != 100 {
			t.Errorf("received %q with %d bytes", d.ID, len(d.Body))
		}
		settle(t, q, locked[0], driver.Complete, 0) // no other receiver touched it
	})
}

// The attacker sees messages as drivers do, and makes new ones of them.
func TestAttacker(t *testing.T) {
	b := memqueue.New(nil)
	q := open(t, b, "q")
	a := b.Attacker()
	send(t, q, message("1"), message("2"), message("3"))
	d, err := q.Receive(t.Context(), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	all, err := a.Read(t.Context(), "q")
	if err != nil || len(all) != 2 || all[0].ID != "2" {
		t.Fatalf("Read = %v, %v", all, err)
	}
	err = a.Rewrite(t.Context(), "q", func(all []driver.Message) []driver.Message {
		slices.Reverse(all)
		all[0].Body = []byte("forged")
		return append(all, all[0])
	})
	if err != nil {
		t.Fatal(err)
	}
	got := take(t, q)
	if len(got) != 3 || got[0].ID != "3" || got[1].ID != "2" || got[2].ID != "3" || string(got[2].Body) != "forged" || got[0].BrokerID == got[2].BrokerID {
		t.Errorf("received %v", got)
	}
	if err := q.Settle(t.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.MoveToDeadLetter, Reason: "r", Description: "d"}})[0]; err != nil {
		t.Fatal(err)
	}
	later := message("later")
	later.NotBefore, later.TTL = time.Now().Add(time.Hour), time.Hour
	send(t, q, later)
	if err := a.Rewrite(t.Context(), "q", func(all []driver.Message) []driver.Message { return all }); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, q); got != "later" {
		t.Errorf("received %q: what the attacker stores is deliverable at once", got)
	}
	dead, why, err := a.DeadLetters(t.Context(), "q")
	if err != nil || len(dead) != 1 || dead[0].ID != "1" || why[0].Reason != "r" || why[0].Description != "d" || why[0].Queue != "q" || why[0].At.IsZero() {
		t.Errorf("DeadLetters = %v, %v, %v", dead, why, err)
	}
	for name, err := range map[string]error{
		"Stored":  func() error { _, err := b.Stored("none"); return err }(),
		"Rewrite": b.Rewrite("none", func(m []memqueue.Stored) []memqueue.Stored { return m }),
		"Read":    func() error { _, err := a.Read(t.Context(), "none"); return err }(),
	} {
		if !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("%s of a queue that does not exist: %v", name, err)
		}
	}
}

// What an attacker does to the bytes that it reads reaches no message, sealed or not, that a
// receiver holds.
func TestStoredIsACopy(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			b := with(memqueue.QueueOptions{})
			q := open(t, b, "q")
			m := message("m")
			m.Sealed = sealed
			body := string(m.Body)
			send(t, q, m)
			all, err := b.Stored("q")
			if err != nil || len(all) != 1 {
				t.Fatalf("Stored = %+v, %v", all, err)
			}
			all[0].Body[0] ^= 1
			if err := b.Rewrite("q", func(list []memqueue.Stored) []memqueue.Stored {
				kept := slices.Clone(list)
				kept[0].Body = []byte(body)
				list[0].Body[0] ^= 1
				return kept
			}); err != nil {
				t.Fatal(err)
			}
			if got := take(t, q); len(got) != 1 || string(got[0].Body) != body || string(m.Body) != body {
				t.Errorf("sealed %t: received %d messages, %q, want %q; the sender has %q", sealed, len(got), got[0].Body, body, m.Body)
			}
		})
	}
}
