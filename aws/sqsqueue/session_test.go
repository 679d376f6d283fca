package sqsqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// fifo makes a FIFO queue "q" with a dead-letter queue, and n connections to it.
func fifo(t *testing.T, f *fakeSQS, n int, o *Options) []driver.Queue {
	t.Helper()
	f.create("d.fifo", nil)
	f.create("q.fifo", fakeRedrive("d.fifo", 100))
	out := make([]driver.Queue, n)
	for i := range out {
		out[i] = open(t, connect(t, f, o), "q", nil)
	}
	return out
}

// A FIFO queue hands out one message of a group at a time, although SQS sends
// several at once, and the ones behind it wait here without a request.
func TestFIFOReceiveIsOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		q := fifo(t, f, 1, nil)[0]
		send(t, q, "a1", "a2", "a3", "b1")
		d := receiveBodies(t, q, 10, time.Second, "a1", "b1")
		if more := receive(t, q, 10, time.Second); more != nil {
			t.Fatalf("got %q beside the first", more[0].Body)
		}
		settle(t, q, driver.Complete, d...)
		polls := f.count("ReceiveMessage")
		for _, want := range []string{"a2", "a3"} {
			settle(t, q, driver.Complete, receiveBodies(t, q, 10, time.Second, want)...)
		}
		if n := f.count("ReceiveMessage"); n != polls {
			t.Errorf("%d polls for what was already here", n-polls)
		}
		if left := f.depth("q.fifo"); left != nil {
			t.Errorf("left: %v", left)
		}
	})
}

// Abandoning the first message of a group gives back those behind it, so that any
// receiver gets it again at once, in order.
func TestFIFOAbandonReleasesTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		qs := fifo(t, f, 2, nil)
		a, b := qs[0], qs[1]
		send(t, a, "a1", "a2", "a3")
		settle(t, a, driver.Abandon, receiveBodies(t, a, 10, time.Second, "a1")...)
		begin := time.Now()
		for _, want := range []string{"a1", "a2", "a3"} {
			settle(t, b, driver.Complete, receiveBodies(t, b, 10, time.Second, want)...)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// What waits behind a message is renewed with it, for hours.
func TestFIFORenewKeepsTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		qs := fifo(t, f, 2, nil)
		a, b := qs[0], qs[1]
		send(t, a, "a1", "a2")
		d := receiveBodies(t, a, 10, time.Second, "a1")
		for range 20 {
			time.Sleep(20 * time.Second)
			r := a.Renew(t.Context(), d)[0]
			if r.Err != nil || !r.LockedUntil.Equal(d[0].LockedUntil) || time.Until(r.LockedUntil) != 30*time.Second {
				t.Fatalf("renew: %v, %v", r.LockedUntil, r.Err)
			}
			if got := receive(t, b, 10, 0); got != nil {
				t.Fatalf("another process got %q", got[0].Body)
			}
		}
		settle(t, a, driver.Complete, d...)
		polls := f.count("ReceiveMessage")
		if d = receiveBodies(t, a, 10, time.Second, "a2"); d[0].Count != 1 || f.count("ReceiveMessage") != polls {
			t.Errorf("what waited here was lost: delivery %d, %d more polls", d[0].Count, f.count("ReceiveMessage")-polls)
		}
		settle(t, a, driver.Complete, d...)
	})
}

// A message that waited here until most of its lock was over is renewed before it
// is handed out.
func TestHandOutRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		q := fifo(t, f, 1, nil)[0]
		send(t, q, "a1", "a2")
		d := receiveBodies(t, q, 10, time.Second, "a1")
		time.Sleep(25 * time.Second)
		settle(t, q, driver.Complete, d...)
		d = receiveBodies(t, q, 10, time.Second, "a2")
		if left := time.Until(d[0].LockedUntil); left < 20*time.Second {
			t.Errorf("handed out with %s of lock", left)
		}
		settle(t, q, driver.Complete, d...)
	})
}

func TestSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		qs := fifo(t, f, 2, &Options{SessionBatch: 10})
		a, b := qs[0], qs[1]
		send(t, a, "a1", "a2", "a3", "b1")
		s := accept(t, a, time.Second)
		if s.ID() != "a" {
			t.Fatalf("session %q", s.ID())
		}
		d := receiveBodies(t, s, 2, time.Second, "a1", "a2")
		for range 10 {
			time.Sleep(20 * time.Second)
			until, err := s.RenewSession(t.Context())
			if err != nil || time.Until(until) != 30*time.Second || !until.Equal(s.LockedUntil()) {
				t.Fatalf("renew: %v, %v", until, err)
			}
		}
		other := accept(t, b, time.Second)
		if other.ID() != "b" {
			t.Fatalf("the other holder got session %q", other.ID())
		}
		if _, err := b.AcceptSession(t.Context(), "", time.Second); !errors.Is(err, driver.ErrNoSession) {
			t.Fatalf("a third: %v", err)
		}
		settle(t, s, driver.Complete, d...)
		d = receiveBodies(t, s, 2, time.Second, "a3")
		settle(t, s, driver.Complete, d...)
		// The session goes on: what is sent later is its own.
		go func() {
			time.Sleep(500 * time.Millisecond)
			send(t, a, "a4")
		}()
		settle(t, s, driver.Complete, receiveBodies(t, s, 1, 10*time.Second, "a4")...)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := other.Close(t.Context()); err != nil {
			t.Error(err)
		}
		_, err := s.Receive(t.Context(), 1, 0)
		wantError(t, err, driver.ErrClosed)
	})
}

// Closing a session gives back all of it at once, in order.
func TestSessionClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		qs := fifo(t, f, 2, &Options{SessionBatch: 10})
		send(t, qs[0], "a1", "a2", "a3")
		s := accept(t, qs[0], time.Second)
		d := receiveBodies(t, s, 2, 0, "a1", "a2")
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, err := range settleErrors(s, driver.Complete, d...) {
			wantError(t, err, driver.ErrLockLost)
		}
		begin := time.Now()
		s = accept(t, qs[1], 10*time.Second)
		receiveBodies(t, s, 3, 0, "a1", "a2", "a3")
		if took := time.Since(begin); took > 0 {
			t.Errorf("taken over after %s", took)
		}
	})
}

// A holder that goes away loses the session when its lock ends, and settles
// nothing from then on, although SQS would let it.
func TestSessionLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		qs := fifo(t, f, 2, &Options{SessionBatch: 10})
		send(t, qs[0], "a1", "a2")
		s := accept(t, qs[0], time.Second)
		d := receiveBodies(t, s, 1, 0, "a1")
		begin := time.Now()
		next := accept(t, qs[1], time.Minute)
		if took := time.Since(begin); took < 29*time.Second || took > 31*time.Second {
			t.Errorf("taken over after %s", took)
		}
		wantError(t, settleErrors(s, driver.Complete, d...)[0], driver.ErrLockLost)
		_, err := s.RenewSession(t.Context())
		wantError(t, err, driver.ErrSessionLost)
		_, err = s.Receive(t.Context(), 1, 0)
		wantError(t, err, driver.ErrSessionLost)
		wantError(t, s.Renew(t.Context(), d)[0].Err, driver.ErrLockLost)
		d = receiveBodies(t, next, 5, 0, "a1", "a2")
		if d[0].Count != 2 {
			t.Errorf("count %d", d[0].Count)
		}
		settle(t, next, driver.Complete, d...)
		if left := f.depth("q.fifo"); left != nil {
			t.Errorf("left: %v", left)
		}
	})
}

// Messages of other groups that come along go to a receiver of this process that wants
// them, and otherwise back, soon; no message waits for its lock to run out.
func TestSessionBatchHandsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		qs := fifo(t, f, 2, &Options{SessionBatch: 10})
		a, b := qs[0], qs[1]
		send(t, a, "a1", "b1", "c1")
		sa := accept(t, a, time.Second)
		polls := f.count("ReceiveMessage")
		sb := accept(t, a, time.Second)
		if sa.ID() != "a" || sb.ID() != "b" || f.count("ReceiveMessage") != polls {
			t.Fatalf("sessions %s, %s after %d more polls", sa.ID(), sb.ID(), f.count("ReceiveMessage")-polls)
		}
		begin := time.Now()
		sc := accept(t, b, time.Minute)
		if took := time.Since(begin); sc.ID() != "c" || took > maxGrace+time.Second {
			t.Errorf("session %s came to the other process after %s", sc.ID(), took)
		}
	})
}

// A session that has no message left does not keep the messages of others, which are
// all that SQS has to give, for the length of its wait.
func TestDrySessionGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		q := fifo(t, f, 1, nil)[0]
		send(t, q, "a1", "b1", "c1", "d1", "e1", "f1")
		var order []string
		begin := time.Now()
		for range 6 {
			s := accept(t, q, time.Second)
			for {
				d := receive(t, s, 10, 20*time.Second)
				if len(d) == 0 {
					break
				}
				order = append(order, string(d[0].Body))
				if d[0].Count != 1 {
					t.Errorf("%q was delivered %d times", d[0].Body, d[0].Count)
				}
				settle(t, s, driver.Complete, d...)
				if d[0].Body[0] == 'f' {
					break // nothing else is left to make it give way
				}
			}
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(order)
		if fmt.Sprint(order) != "[a1 b1 c1 d1 e1 f1]" {
			t.Errorf("got %v", order)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("six sessions of one message took %s", took)
		}
	})
}

func TestSessionAbandon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		q := fifo(t, f, 1, &Options{SessionBatch: 10})[0]
		send(t, q, "a1", "a2", "a3")
		s := accept(t, q, time.Second)
		d := receiveBodies(t, s, 1, 0, "a1")
		errs := s.Settle(t.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.Abandon, Delay: 3 * time.Second}})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		begin := time.Now()
		d = receiveBodies(t, s, 3, 20*time.Second, "a1", "a2", "a3")
		if took := time.Since(begin); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("came again after %s", took)
		}
		settle(t, s, driver.Complete, d...)
	})
}

// A message without a session on a FIFO queue is a group of its own; it can be
// received either way.
func TestFIFOWithoutSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		q := fifo(t, f, 1, nil)[0]
		r := q.Send(t.Context(), []*driver.Message{{ID: "one", Body: []byte("1")}, {ID: "two", Body: []byte("2")}})
		if r[0].Err != nil || r[1].Err != nil {
			t.Fatal(r)
		}
		s := accept(t, q, time.Second)
		d := receiveBodies(t, s, 5, 0, "1")
		if s.ID() != "one" || d[0].SessionID != "" {
			t.Errorf("session %q, message of %q", s.ID(), d[0].SessionID)
		}
		settle(t, s, driver.Complete, d...)
		d = receiveBodies(t, q, 5, time.Second, "2")
		if d[0].ID != "two" || d[0].SessionID != "" {
			t.Errorf("received %+v, want two, without a session", d[0].Message)
		}
		settle(t, q, driver.Complete, d...)
	})
}

func TestAcceptSessionRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("s", nil)
		q := fifo(t, f, 1, nil)[0]
		_, err := q.AcceptSession(t.Context(), "a", 0)
		wantError(t, err, errors.ErrUnsupported)
		_, err = q.AcceptSession(t.Context(), "", 0)
		wantError(t, err, driver.ErrNoSession)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = q.AcceptSession(ctx, "", 20*time.Second)
		wantError(t, err, context.DeadlineExceeded)
		_, err = open(t, connect(t, f, nil), "s", nil).AcceptSession(t.Context(), "", 0)
		wantError(t, err, errors.ErrUnsupported)
	})
}

// Without a message in flight a session ends with its lock, unless it is renewed.
func TestIdleSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		q := fifo(t, f, 1, nil)[0]
		send(t, q, "a1")
		s := accept(t, q, time.Second)
		settle(t, s, driver.Complete, receiveBodies(t, s, 1, 0, "a1")...)
		time.Sleep(20 * time.Second)
		if _, err := s.RenewSession(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30*time.Second - 1)
		if d, err := s.Receive(t.Context(), 1, 0); err != nil || d != nil {
			t.Fatalf("received %v, %v; want nothing before its time", d, err)
		}
		time.Sleep(time.Nanosecond)
		_, err := s.Receive(t.Context(), 1, 0)
		wantError(t, err, driver.ErrSessionLost)
	})
}

// A message that fails again and again spends no deliveries but its own: although many
// receivers wait for sessions, what stands behind it in its group is not received along
// with it. So the redrive policy takes the one message and not the group.
func TestPoisonMessageInGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 5
		f := newFakeSQS()
		f.create("d.fifo", nil)
		f.create("q.fifo", fakeRedrive("d.fifo", limit))
		q := open(t, connect(t, f, nil), "q", nil)
		ctx, stop := context.WithCancel(t.Context())
		var workers sync.WaitGroup
		var mu sync.Mutex
		counts := make(map[string]int)
		for range 8 {
			workers.Go(func() {
				for ctx.Err() == nil {
					s, err := q.AcceptSession(ctx, "", 20*time.Second)
					if err != nil {
						continue
					}
					d, err := s.Receive(ctx, 1, time.Second)
					if err == nil && len(d) == 1 {
						mu.Lock()
						counts[string(d[0].Body)] = d[0].Count
						mu.Unlock()
						kind := driver.Complete
						if string(d[0].Body) == "a1" {
							kind = driver.Abandon
						}
						settle(t, s, kind, d...)
					}
					if err := s.Close(context.Background()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		synctest.Wait()
		send(t, q, "a1", "a2", "a3", "a4", "a5", "b1")
		time.Sleep(time.Minute)
		stop()
		workers.Wait()
		for _, id := range []string{"a1", "a2", "a3", "a4", "a5", "b1"} {
			// A session that is closed gives back what has just come for it.
			if n := counts[id]; n == 0 || (n >= limit) != (id == "a1") {
				t.Errorf("deliveries: %v", counts)
			}
		}
		if dead := f.depth("d.fifo"); fmt.Sprint(dead) != "[a1]" {
			t.Errorf("dead letters: %v", dead)
		}
	})
}
