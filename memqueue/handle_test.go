package memqueue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
)

func with(o memqueue.QueueOptions) *memqueue.Broker {
	return memqueue.New(&memqueue.Options{Default: o})
}

// bubble runs f in a synctest bubble.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// A full queue refuses, and takes again when something is gone.
func TestCapacity(t *testing.T) {
	q := open(t, with(memqueue.QueueOptions{MaxMessages: 3}), "q")
	r := q.Send(t.Context(), []*driver.Message{message("1"), message("2"), message("3"), message("4")})
	for i, r := range r {
		if full := errors.Is(r.Err, driver.ErrFull); full != (i == 3) {
			t.Errorf("message %d: %v", i+1, r.Err)
		}
	}
	var e *driver.Error
	if !errors.As(r[3].Err, &e) || !e.Transient() {
		t.Errorf("a full queue is not transient: %v", r[3].Err)
	}
	d := take(t, q)
	settle(t, q, d[0], driver.MoveToDeadLetter, 0) // goes on counting
	if r := q.Send(t.Context(), []*driver.Message{message("4")}); !errors.Is(r[0].Err, driver.ErrFull) {
		t.Errorf("with a dead letter and two messages: %v", r[0].Err)
	}
	settle(t, q, d[1], driver.Complete, 0)
	send(t, q, message("4"))

	m := message("m")
	q = open(t, with(memqueue.QueueOptions{MaxBytes: 2*q.Size(m) + 1}), "q")
	send(t, q, message("m"), message("n"))
	if r := q.Send(t.Context(), []*driver.Message{message("o")}); !errors.Is(r[0].Err, driver.ErrFull) {
		t.Errorf("with no byte left: %v", r[0].Err)
	}
	if got := ids(t, q); got != "m n" {
		t.Errorf("received %s", got)
	}
	send(t, q, message("o"))
}

func TestBatchLimits(t *testing.T) {
	q := open(t, with(memqueue.QueueOptions{MaxBatch: 2, MaxBatchBytes: 100, MaxAttributes: 1}), "q")
	for name, c := range map[string]struct {
		batch []*driver.Message
		want  driver.TooLargeError
	}{
		"too many":            {[]*driver.Message{message("a"), message("b"), message("c")}, driver.TooLargeError{What: "batch", Size: 3, Limit: 2, Unit: "messages"}},
		"too large":           {[]*driver.Message{{ID: "a", Body: make([]byte, 70)}, {ID: "b", Body: make([]byte, 70)}}, driver.TooLargeError{What: "batch", Size: 142, Limit: 100}},
		"one too large":       {[]*driver.Message{{ID: "a", Body: make([]byte, 100)}}, driver.TooLargeError{What: "message", Size: 101, Limit: 100}},
		"too many attributes": {[]*driver.Message{{ID: "a", Attributes: map[string]string{"x": "", "y": ""}}}, driver.TooLargeError{What: "attributes", Size: 2, Limit: 1, Unit: "entries"}},
	} {
		r := q.Send(t.Context(), c.batch)
		if len(r) != len(c.batch) {
			t.Fatalf("%s: %d results", name, len(r))
		}
		for _, r := range r {
			var e *driver.TooLargeError
			if !errors.Is(r.Err, driver.ErrTooLarge) || !errors.As(r.Err, &e) || *e != c.want {
				t.Errorf("%s: %v, want %v", name, r.Err, &c.want)
			}
		}
	}
	for name, m := range map[string]*driver.Message{
		"nil":            nil,
		"no ID":          {},
		"a long ID":      {ID: strings.Repeat("x", 129)},
		"an ID of bytes": {ID: "\xff"},
		"a negative TTL": {ID: "m", TTL: -1},
		"an empty name":  {ID: "m", Attributes: map[string]string{"": "v"}},
		"a long name":    {ID: "m", Attributes: map[string]string{strings.Repeat("x", 256): "v"}},
	} {
		if r := q.Send(t.Context(), []*driver.Message{m}); !errors.Is(r[0].Err, driver.ErrInvalid) {
			t.Errorf("%s: %v", name, r[0].Err)
		}
	}
	if st, err := q.Stats(t.Context()); err != nil || st != (driver.Stats{}) {
		t.Errorf("the queue holds %+v, %v", st, err)
	}
}

// Time to live and retention end a message, wherever it is; being held it ends
// when it is given back.
func TestExpiry(t *testing.T) {
	for _, buried := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			b := with(memqueue.QueueOptions{Lock: time.Second, TTL: 10 * time.Second, Retention: time.Minute, DeadLetterExpired: buried})
			q := open(t, b, "q")
			now := time.Now()
			for _, m := range []*driver.Message{
				{ID: "own", TTL: 2 * time.Second},
				{ID: "queue's"},
				{ID: "too long", TTL: time.Hour},
				{ID: "scheduled", NotBefore: now.Add(5 * time.Second), TTL: 2 * time.Second},
				{ID: "session", SessionID: "s", TTL: 2 * time.Second},
			} {
				send(t, q, m)
			}
			stored := func(want string) {
				t.Helper()
				all, err := b.Stored("q")
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, m := range all {
					got = append(got, m.ID)
				}
				if s := strings.Join(got, ","); s != want {
					t.Errorf("after %s the queue has %s, want %s", time.Since(now), s, want)
				}
			}
			time.Sleep(1999 * time.Millisecond)
			stored("own,queue's,too long,scheduled,session")
			time.Sleep(time.Millisecond)
			stored("queue's,too long,scheduled")
			time.Sleep(5 * time.Second)
			stored("queue's,too long")
			time.Sleep(2500 * time.Millisecond)
			locked := take(t, q) // at 9.5 s
			time.Sleep(750 * time.Millisecond)
			stored("queue's,too long") // held, although it is past its end
			settle(t, q, locked[0], driver.Complete, 0)
			time.Sleep(250 * time.Millisecond)
			stored("") // its lock ran out
			dead, err := b.StoredDeadLetters("q")
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			if buried {
				want = 4
			}
			if len(dead) != want {
				t.Errorf("%d dead letters, want %d", len(dead), want)
			}
			for _, d := range dead {
				if d.DeadLetter.Reason != driver.ReasonExpired || d.DeadLetter.Queue != "q" {
					t.Errorf("dead letter %s: %+v", d.ID, d.DeadLetter)
				}
			}
		})
	}
}

func TestDedupWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := open(t, with(memqueue.QueueOptions{DedupWindow: time.Minute}), "q")
		if q.Capabilities().Dedup != driver.Native {
			t.Error("a queue with a window does not claim Dedup")
		}
		once := func(id string) string {
			r := q.Send(t.Context(), []*driver.Message{message(id)})[0]
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			return r.BrokerID
		}
		first := once("a")
		time.Sleep(30 * time.Second)
		other := once("b")
		if again := once("a"); again != first || other == first {
			t.Errorf("a repeat has the BrokerID %q, the first %q, another %q", again, first, other)
		}
		time.Sleep(30 * time.Second) // the repeat has not prolonged the window
		if again := once("a"); again == first {
			t.Error("a repeat was dropped after the window")
		}
		if again := once("b"); again != other {
			t.Error("a repeat was kept within the window")
		}
		if got := ids(t, q); got != "a b a" {
			t.Errorf("received %s", got)
		}
	})
}

// Messages keep their place, also when they come back or become due.
func TestPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := open(t, memqueue.New(nil), "q")
		later := message("2")
		later.NotBefore = time.Now().Add(time.Second)
		send(t, q, message("1"), later, message("3"), message("4"))
		d, err := q.Receive(t.Context(), 1, 0)
		if err != nil || d[0].ID != "1" {
			t.Fatalf("received %v, %v", d, err)
		}
		time.Sleep(time.Second)
		settle(t, q, d[0], driver.Abandon, 0)
		if got := ids(t, q); got != "1 2 3 4" {
			t.Errorf("received %s", got)
		}
		// So in a session, too: a scheduled message holds up no other.
		first, second := message("1"), message("2")
		first.SessionID, second.SessionID = "s", "s"
		first.NotBefore = time.Now().Add(time.Second)
		send(t, q, first, second)
		d = take(t, q)
		if len(d) != 1 || d[0].ID != "2" {
			t.Fatalf("received %v", d)
		}
		time.Sleep(time.Second)
		if got := take(t, q); len(got) != 0 {
			t.Errorf("received %s while a message of its session is held", got[0].ID)
		}
		settle(t, q, d[0], driver.Abandon, 0)
		if got := ids(t, q) + " " + ids(t, q); got != "1 2" {
			t.Errorf("received %s", got)
		}
		// And among messages with and without a session.
		var all []*driver.Message
		for i, s := range []string{"a", "", "b", "", "c"} {
			m := message(fmt.Sprint(i))
			m.SessionID = s
			all = append(all, m)
		}
		send(t, q, all...)
		if got := ids(t, q); got != "0 1 2 3 4" {
			t.Errorf("received %s", got)
		}
	})
}

// What a queue or a connection holds is free the moment that it is closed.
func TestReleasedByClose(t *testing.T) {
	b := with(memqueue.QueueOptions{Lock: time.Hour})
	for name, end := range map[string]func(driver.Broker, driver.Queue) error{
		"queue":  func(_ driver.Broker, q driver.Queue) error { return q.Close(t.Context()) },
		"broker": func(p driver.Broker, _ driver.Queue) error { return p.Close(t.Context()) },
	} {
		p := b.Connect()
		q, other := open(t, p, name), open(t, b, name)
		m := message("s")
		m.SessionID = "s"
		send(t, q, message("m"), m)
		s, err := q.AcceptSession(t.Context(), "s", 0)
		if err != nil {
			t.Fatal(err)
		}
		if d := append(take(t, s), take(t, q)...); len(d) != 2 {
			t.Fatalf("received %d messages", len(d))
		}
		if got := take(t, other); len(got) != 0 {
			t.Fatalf("received %d messages that are held", len(got))
		}
		if err := end(p, q); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Receive(t.Context(), 1, time.Hour); !errors.Is(err, driver.ErrClosed) {
			t.Errorf("Receive of a session whose %s was closed: %v", name, err)
		}
		got := take(t, other)
		if len(got) != 2 || got[0].Count != 2 || got[1].Count != 2 {
			t.Errorf("received %d messages after the %s was closed", len(got), name)
		}
		for _, d := range got {
			settle(t, other, d, driver.Complete, 0)
		}
	}
}

// A call that waits in a session ends with it, whichever way that is.
func TestSessionEndWakes(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*testing.T, driver.Queue, driver.Session) error
		want error
	}{
		"lost":   {func(*testing.T, driver.Queue, driver.Session) error { return nil }, driver.ErrSessionLost},
		"closed": {func(t *testing.T, _ driver.Queue, s driver.Session) error { return s.Close(t.Context()) }, driver.ErrClosed},
		"queue":  {func(t *testing.T, q driver.Queue, _ driver.Session) error { return q.Close(t.Context()) }, driver.ErrClosed},
	} {
		bubble(t, func(t *testing.T) {
			q := open(t, with(memqueue.QueueOptions{Lock: time.Minute}), "q")
			s, err := q.AcceptSession(t.Context(), "s", 0)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() {
				_, err := s.Receive(t.Context(), 1, time.Hour)
				done <- err
			}()
			synctest.Wait()
			begin := time.Now()
			if err := c.end(t, q, s); err != nil {
				t.Fatal(err)
			}
			if err := <-done; !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
			if d := time.Since(begin); d > time.Minute {
				t.Errorf("%s: woken after %s", name, d)
			}
		})
	}
}

// A dead letter begins to count anew.
func TestDeadLetterCount(t *testing.T) {
	q := open(t, memqueue.New(nil), "q")
	send(t, q, message("m"))
	settle(t, q, take(t, q)[0], driver.Abandon, 0)
	first := take(t, q)[0]
	settle(t, q, first, driver.MoveToDeadLetter, 0)
	dead, err := q.DeadLetters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for want := 1; want <= 20; want++ { // MaxDeliveries is not for dead letters
		d := take(t, dead)[0]
		if d.Count != want || d.BrokerID != first.BrokerID {
			t.Fatalf("delivery %d of a dead letter: count %d, BrokerID %s", want, d.Count, d.BrokerID)
		}
		settle(t, dead, d, driver.Abandon, 0)
	}
}

// Sessions are served in turn: one that always has a message, and always gives
// it back, does not starve the others.
func TestSessionTurns(t *testing.T) {
	q := open(t, with(memqueue.QueueOptions{MaxDeliveries: -1}), "q")
	for i := range 3 {
		for _, s := range []string{"a", "b", "c"} {
			m := message(fmt.Sprint(s, i))
			m.SessionID = s
			send(t, q, m)
		}
	}
	var order []string
	for range 9 {
		s, err := q.AcceptSession(t.Context(), "", 0)
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, s.ID())
		d, err := s.Receive(t.Context(), 1, 0)
		if err != nil || len(d) != 1 {
			t.Fatalf("received %d messages, %v", len(d), err)
		}
		if s.ID() != "a" {
			settle(t, s, d[0], driver.Complete, 0)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(order, ""); got != "abcabcabc" {
		t.Errorf("the sessions were served in the order %s", got)
	}
}

// A session cannot be accepted while a receiver outside of it has a message of
// it, and can when that is settled.
func TestSessionInPlainHands(t *testing.T) {
	q := open(t, memqueue.New(nil), "q")
	m := message("m")
	m.SessionID = "s"
	send(t, q, m)
	d := take(t, q)[0]
	if _, err := q.AcceptSession(t.Context(), "s", 0); !errors.Is(err, driver.ErrSessionHeld) {
		t.Errorf("AcceptSession: %v", err)
	}
	settle(t, q, d, driver.Complete, 0)
	s, err := q.AcceptSession(t.Context(), "s", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A message can be sent to every waiting receiver in turn, the first come first.
func TestWaitingInTurn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := open(t, memqueue.New(nil), "q")
		got := make(chan string, 10)
		for i := range 5 {
			go func() {
				d, err := q.Receive(t.Context(), 1, time.Hour)
				if err != nil || len(d) != 1 {
					got <- fmt.Sprint(len(d), " messages, ", err)
					return
				}
				got <- fmt.Sprint(i, d[0].ID)
			}()
			synctest.Wait()
		}
		for i := range 5 {
			send(t, q, message(fmt.Sprint("m", i)))
			if s := <-got; s != fmt.Sprintf("%dm%d", i, i) {
				t.Errorf("receiver and message: %s, want %d and m%d", s, i, i)
			}
		}
	})
}

// A receiver that gives up as it is woken leaves the message to the next.
func TestWakePassedOn(t *testing.T) {
	for i := range 50 {
		bubble(t, func(t *testing.T) {
			q := open(t, with(memqueue.QueueOptions{Lock: time.Hour}), "q")
			ctx, cancel := context.WithCancel(t.Context())
			results := make(chan int, 2)
			for _, ctx := range []context.Context{ctx, t.Context()} {
				go func() {
					d, _ := q.Receive(ctx, 1, time.Minute) // one of the two gets it, or none
					results <- len(d)
				}()
				synctest.Wait()
			}
			if i%2 == 0 {
				go cancel()
				send(t, q, message("m"))
			} else {
				sent := make(chan driver.SendResult)
				go func() { sent <- q.Send(t.Context(), []*driver.Message{message("m")})[0] }()
				cancel()
				if r := <-sent; r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			begin := time.Now()
			if n := <-results + <-results; n != 1 {
				t.Fatalf("%d receivers have the message", n)
			}
			if d := time.Since(begin); d > time.Minute {
				t.Fatalf("it took %s", d)
			}
			cancel()
		})
	}
}

// Calls that wait are woken by time alone: the end of a lock, of a delay, of a
// session, a schedule; on the dead-letter queue by a message that expires.
func TestWokenByTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := with(memqueue.QueueOptions{Lock: time.Second, DeadLetterExpired: true})
		q := open(t, b, "q")
		exactly := func(what string, want time.Duration, call func() error) {
			t.Helper()
			begin := time.Now()
			if err := call(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if d := time.Since(begin); d != want {
				t.Errorf("%s: woken after %s, want %s", what, d, want)
			}
		}
		var last *driver.Delivery
		receive := func(src driver.Source) func() error {
			return func() error {
				d, err := src.Receive(t.Context(), 1, time.Hour)
				if err == nil {
					last = d[0]
				}
				return err
			}
		}
		m := message("m")
		m.NotBefore = time.Now().Add(3 * time.Second)
		send(t, q, m)
		exactly("schedule", 3*time.Second, receive(q))
		exactly("lock", time.Second, receive(q))
		settle(t, q, last, driver.Abandon, 2*time.Second)
		exactly("delay", 2*time.Second, receive(q))
		settle(t, q, last, driver.Complete, 0)

		s := message("s")
		s.SessionID = "s"
		send(t, q, s)
		if _, err := q.AcceptSession(t.Context(), "", 0); err != nil {
			t.Fatal(err)
		}
		var session driver.Session
		exactly("session by name", time.Second, func() (err error) {
			session, err = q.AcceptSession(t.Context(), "s", time.Hour)
			return err
		})
		exactly("next session", time.Second, func() (err error) {
			session, err = q.AcceptSession(t.Context(), "", time.Hour)
			return err
		})
		exactly("a holder", time.Second, func() error {
			if _, err := session.Receive(t.Context(), 1, 0); err != nil {
				return err
			}
			if _, err := session.Receive(t.Context(), 1, time.Hour); !errors.Is(err, driver.ErrSessionLost) {
				return fmt.Errorf("a session that is lost: %w", err)
			}
			return nil
		})
		exactly("plain, behind a session", 0, receive(q))
		settle(t, q, last, driver.Complete, 0)

		e := message("e")
		e.TTL = 4 * time.Second
		send(t, q, e)
		dead, err := q.DeadLetters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		exactly("dead letter", 4*time.Second, receive(dead))
		if st, err := dead.Stats(t.Context()); err != nil || st.InFlight != 1 || st.DeadLetters != 0 {
			t.Errorf("Stats of the dead-letter queue: %+v, %v", st, err)
		}
	})
}

// An idle broker has no timer and no goroutine; a closed one neither, whatever
// was going on.
func TestIdle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := with(memqueue.QueueOptions{Lock: time.Second})
		q := open(t, b, "q")
		for i := range 100 {
			m := message(fmt.Sprint("m", i))
			m.NotBefore = time.Now().Add(time.Duration(i) * time.Second)
			send(t, q, m)
		}
		take(t, q)
		done := make(chan error)
		go func() {
			for {
				if _, err := q.Receive(t.Context(), 1, time.Hour); err != nil {
					done <- err
					return
				}
			}
		}()
		time.Sleep(10 * time.Second)
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, driver.ErrClosed) {
			t.Errorf("Receive: %v", err)
		}
		// The bubble ends here: a goroutine that is left would fail the test.
	})
}

func TestSessionStateKept(t *testing.T) {
	q := open(t, memqueue.New(nil), "q")
	accept := func() driver.StatefulSession {
		s, err := q.AcceptSession(t.Context(), "s", 0)
		if err != nil {
			t.Fatal(err)
		}
		return stateful(t, s)
	}
	s := accept()
	state := []byte("state")
	if err := s.SetState(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	state[0] = 'x' // a copy was kept
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.State(t.Context()); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("State of a closed session: %v", err)
	}
	if got, err := accept().State(t.Context()); err != nil || string(got) != "state" {
		t.Errorf("State = %q, %v", got, err)
	}
}

// TestBodies: what is stored is a copy, which neither a sender nor a receiver can
// change, but the bytes of a sealed body, which nothing changes, are kept and handed out
// as they are.
func TestBodies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, sealed := range []bool{false, true} {
			q := open(t, memqueue.New(nil), "q")
			m := &driver.Message{ID: "m", Body: []byte("body"), Sealed: sealed, Attributes: map[string]string{"a": "1"}}
			if err := q.Send(t.Context(), []*driver.Message{m})[0].Err; err != nil {
				t.Fatal(err)
			}
			if !sealed {
				m.Body[0] = 'x'
			}
			m.Attributes["a"] = "2"
			first := take(t, q)[0]
			settle(t, q, first, driver.Abandon, 0)
			second := take(t, q)[0]
			if string(second.Body) != "body" || second.Attributes["a"] != "1" {
				t.Errorf("sealed %t: the body is %q, want %q; attributes %v", sealed, second.Body, "body", second.Attributes)
			}
			if shared := &first.Body[0] == &m.Body[0]; shared != sealed {
				t.Errorf("sealed %t: the broker shares the sender's body: %t", sealed, shared)
			}
			if shared := &first.Body[0] == &second.Body[0]; shared != sealed {
				t.Errorf("sealed %t: two deliveries share the body: %t", sealed, shared)
			}
		}
	})
}
