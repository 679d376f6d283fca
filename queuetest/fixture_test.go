package queuetest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/queuetest"
)

const orders = "orders"

func TestFixture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := queuetest.New(t, nil)
		s, r := open(t, f)
		send(t, s, "a", "b")
		waiting := f.Waiting(t.Context(), orders)
		if len(waiting) != 2 || string(waiting[1].Body) != "body b" || !waiting[1].Encrypted {
			t.Fatalf("waiting: %+v", waiting)
		}
		d := one(t, r)
		if err := d.DeadLetter(t.Context(), queue.Reason{Code: "odd"}); err != nil {
			t.Fatal(err)
		}
		dead := f.DeadLettered(t.Context(), orders)
		if len(dead) != 1 || dead[0].ID != "a" || dead[0].DeadLetter.Reason != "odd" || string(dead[0].Body) != "body a" {
			t.Errorf("dead letters: %+v", dead)
		}
	})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := queuetest.New(t, nil)
		s, r := open(t, f)
		ctx := t.Context()

		f.Broker.Inject(queuetest.Fault{On: queuetest.Send, Err: queuetest.Throttle(3 * time.Second), Times: 1})
		_, err := s.Send(ctx, &queue.Message{ID: "x"})
		var e *queue.Error
		if !errors.Is(err, queue.ErrThrottled) || !errors.As(err, &e) || e.RetryAfter != 3*time.Second {
			t.Errorf("throttled Send: %v", err)
		}
		send(t, s, "a") // once only

		f.Broker.Inject(queuetest.Fault{On: queuetest.Receive, Queue: orders, Delay: time.Minute, Times: 1}, queuetest.Fault{On: queuetest.Receive, Queue: "other", Err: queuetest.Unavailable()})
		begin := time.Now()
		d := one(t, r)
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("a delay of a minute took %s", took)
		}
		f.Broker.Inject(queuetest.Fault{On: queuetest.Settle, Err: queuetest.Unavailable(), Times: 1})
		if err := d.Complete(ctx); !errors.Is(err, queue.ErrUnavailable) {
			t.Errorf("Complete: %v", err)
		}
		f.Broker.Inject(queuetest.Fault{On: queuetest.Settle, LostAnswer: queuetest.Unavailable(), Times: 1})
		if err := d.Complete(ctx); !errors.Is(err, queue.ErrUnavailable) {
			t.Errorf("Complete: %v", err)
		}
		if n := len(f.Waiting(ctx, orders)); n != 0 {
			t.Errorf("%d messages are left although only the answer was lost", n)
		}

		// A lock that is lost: another receiver gets the message.
		send(t, s, "b")
		f.Broker.Inject(queuetest.Fault{On: queuetest.Receive, LoseLock: true, Times: 1})
		first := one(t, r)
		if err := first.Complete(ctx); !errors.Is(err, queue.ErrLockLost) && !errors.Is(err, queue.ErrSettled) {
			t.Errorf("Complete without the lock: %v", err)
		}
		// It was handled and marked as such, so its redelivery is completed.
		if _, err := r.ReceiveOne(ctx); !errors.Is(err, queue.ErrNoMessage) {
			t.Errorf("the redelivery: %v, want ErrNoMessage", err)
		}

		// A renewal that stalls ends with its context.
		send(t, s, "c")
		f.Broker.Inject(queuetest.Fault{On: queuetest.Renew, Stall: true})
		d = one(t, r)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := d.Renew(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Renew: %v", err)
		}
		f.Broker.Heal()
		if err := d.Renew(ctx); err != nil {
			t.Errorf("Renew after Heal: %v", err)
		}
	})
}

func TestDuplicateAndReorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := queuetest.New(t, &queuetest.Options{Seed: 3})
		s, r := open(t, f)
		f.Broker.Inject(queuetest.Fault{On: queuetest.Send, Duplicate: true, Times: 1})
		send(t, s, "twice")
		if err := one(t, r).Complete(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReceiveOne(t.Context()); !errors.Is(err, queue.ErrNoMessage) {
			t.Errorf("the second copy: %v, want ErrNoMessage: it is completed", err)
		}
		var want, got []string
		for i := range 10 {
			want = append(want, fmt.Sprint(i))
		}
		send(t, s, want...)
		f.Broker.Inject(queuetest.Fault{On: queuetest.Receive, Reorder: true})
		batch, err := r.Receive(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range batch {
			got = append(got, d.ID)
		}
		if slices.Equal(got, want) {
			t.Error("not reordered")
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

func TestAttacker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := queuetest.New(t, nil)
		s, r := open(t, f)
		send(t, s, "a")
		if err := one(t, r).Complete(t.Context()); err != nil {
			t.Fatal(err)
		}
		seen := f.Broker.Captured(orders)
		if len(seen) != 1 || seen[0].ID != "a" || !seen[0].Sealed {
			t.Fatalf("captured %+v", seen)
		}
		if err := f.Broker.Store(t.Context(), orders, seen...); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReceiveOne(t.Context()); !errors.Is(err, queue.ErrNoMessage) {
			t.Errorf("a copy of a message that was handled just now: %v, want ErrNoMessage: it is completed", err)
		}
		f.Broker.Tamper(func(_ string, d *driver.Delivery) { d.Body[len(d.Body)-1] ^= 1 })
		send(t, s, "b")
		if _, err := r.ReceiveOne(t.Context()); !errors.Is(err, queue.ErrAuthenticationFailed) {
			t.Errorf("tampered with: %v", err)
		}
		f.Broker.Tamper(nil)
		dead := f.DeadLettered(t.Context(), orders)
		if len(dead) != 1 || dead[0].Err != nil {
			t.Errorf("what is stored was changed: %+v", dead)
		}
		if err := f.Broker.Store(t.Context(), "nowhere", seen...); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("Store: %v", err)
		}
	})
}

// A Rate is a share of the calls, and the seed repeats it.
func TestRate(t *testing.T) {
	failed := func(seed uint64) (n int, which []int) {
		synctest.Test(t, func(t *testing.T) {
			f := queuetest.New(t, &queuetest.Options{Seed: seed})
			_, r := open(t, f)
			f.Broker.Inject(queuetest.Fault{On: queuetest.Receive, Err: queuetest.Unavailable(), Rate: 0.25})
			for i := range 400 {
				switch _, err := r.Receive(t.Context(), 1); {
				case errors.Is(err, queue.ErrUnavailable):
					n++
					which = append(which, i)
				case !errors.Is(err, queue.ErrNoMessage):
					t.Errorf("Receive = %v, want ErrNoMessage", err)
				}
			}
		})
		return n, which
	}
	n, first := failed(7)
	if n < 60 || n > 140 {
		t.Errorf("%d of 400 calls failed at a rate of a quarter", n)
	}
	if _, again := failed(7); !slices.Equal(first, again) {
		t.Error("the same seed gave other faults")
	}
}

// Example is how an application tests its handler.
func Example() {
	t := &example{}
	f := queuetest.New(t, nil)
	ctx := context.Background()
	s, _ := f.Sender(ctx, orders, nil)
	_, _ = s.Send(ctx, &queue.Message{ID: "order-7", Body: []byte("two coffees")})
	for _, m := range f.Waiting(ctx, orders) {
		fmt.Println(m.ID, string(m.Body), m.Encrypted)
	}
	t.end()
	// Output: order-7 two coffees true
}

// example stands for *testing.T, which an Example has not.
type example struct{ cleanups []func() }

func (*example) Helper()                   {}
func (e *example) Cleanup(f func())        { e.cleanups = append(e.cleanups, f) }
func (*example) Errorf(f string, a ...any) { fmt.Printf(f, a...) }
func (*example) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (e *example) end() {
	for _, f := range e.cleanups {
		f()
	}
}

func open(t *testing.T, f *queuetest.Fixture) (*queue.Sender, *queue.Receiver) {
	t.Helper()
	s, err := f.Sender(t.Context(), orders, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Receiver(t.Context(), orders, &queue.ReceiverOptions{Wait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return s, r
}

func send(t *testing.T, s *queue.Sender, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := s.Send(t.Context(), &queue.Message{ID: id, Body: []byte("body " + id)}); err != nil {
			t.Fatal(err)
		}
	}
}

func one(t *testing.T, r *queue.Receiver) *queue.Delivery {
	t.Helper()
	d, err := r.ReceiveOne(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}
