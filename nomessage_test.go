package queue_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// fetching is a call that is asked for messages. It returns how many it brought, and how many
// rejected ones.
type fetching struct {
	name    string
	session string
	call    func(context.Context) (delivered, rejected int, err error)
}

// fetchings are all calls that are asked for messages: those of r, and those of its session "s".
func (x *fixture) fetchings(r *queue.Receiver) []fetching {
	x.Helper()
	s, err := r.AcceptSession(x.Context(), "s")
	x.Must(err)
	many := func(receive func(context.Context, int) ([]*queue.Delivery, error)) func(context.Context) (int, int, error) {
		return func(ctx context.Context) (int, int, error) {
			all, err := receive(ctx, 10)
			if len(all) == 0 && all != nil {
				x.Errorf("an empty slice, want nil")
			}
			return len(all), 0, err
		}
	}
	one := func(receive func(context.Context) (*queue.Delivery, error)) func(context.Context) (int, int, error) {
		return func(ctx context.Context) (n, _ int, err error) {
			d, err := receive(ctx)
			if d != nil {
				n = 1
			}
			return n, 0, err
		}
	}
	batch := func(fetch func(context.Context, int) (queue.Batch, error)) func(context.Context) (int, int, error) {
		return func(ctx context.Context) (int, int, error) {
			b, err := fetch(ctx, 10)
			return len(b.Deliveries), len(b.Rejected), err
		}
	}
	return []fetching{
		{"Receiver.Receive", "", many(r.Receive)},
		{"Receiver.ReceiveOne", "", one(r.ReceiveOne)},
		{"Receiver.Fetch", "", batch(r.Fetch)},
		{"Session.Receive", "s", many(s.Receive)},
		{"Session.ReceiveOne", "s", one(s.ReceiveOne)},
		{"Session.Fetch", "s", batch(func(ctx context.Context, n int) (queue.Batch, error) { return s.Fetch(ctx, n, r.Options().Wait) })},
	}
}

// TestNoMessage: each call that is asked for messages and has none says so with ErrNoMessage,
// unless an error of its own says more.
func TestNoMessage(t *testing.T) {
	const wait = 4 * time.Second // six fit into the lock of the session
	options := &queue.ReceiverOptions{Wait: wait}
	t.Run("none came", func(t *testing.T) {
		inBubble(t, nil, func(x *fixture) {
			for _, a := range x.fetchings(x.Receiver(orders, options)) {
				begin := time.Now()
				n, rejected, err := a.call(x.Context())
				x.failed(a.name, err, queue.ErrNoMessage, "receive")
				if took := time.Since(begin); n+rejected != 0 || took != wait {
					x.Errorf("%s: %d messages and %d rejected after %s, want none after %s", a.name, n, rejected, took, wait)
				}
			}
		})
	})
	t.Run("copies alone", func(t *testing.T) {
		inBubble(t, nil, func(x *fixture) {
			r := x.Receiver(orders, options)
			copies := make(map[string]driver.Message)
			for _, session := range []string{"", "s"} {
				x.Send(&queue.Message{SessionID: session, Body: []byte("a")})
				copies[session] = x.Steal()
				x.Must(x.One(r).Complete(x.Context()))
			}
			for _, a := range x.fetchings(r) {
				x.Inject(orders, copies[a.session])
				n, rejected, err := a.call(x.Context())
				x.failed(a.name, err, queue.ErrNoMessage, "receive")
				if n+rejected+len(x.Rejected)+len(x.Stored(orders)) != 0 {
					x.Errorf("%s: %d messages, %d rejected, told of %v, %d left; want none", a.name, n, rejected, x.Rejected, len(x.Stored(orders)))
				}
			}
		})
	})
	t.Run("all rejected", func(t *testing.T) {
		inBubble(t, nil, func(x *fixture) {
			for _, a := range x.fetchings(x.Receiver(orders, options)) {
				x.Inject(orders, driver.Message{ID: "plain", SessionID: a.session, Body: []byte("a")})
				before := len(x.Rejected)
				n, rejected, err := a.call(x.Context())
				if told := len(x.Rejected) - before; n != 0 || told != 1 {
					x.Errorf("%s: %d messages, told of %d rejected; want 0 and 1", a.name, n, told)
				}
				switch a.name {
				case "Receiver.Fetch", "Session.Fetch":
					if rejected != 1 || err != nil {
						x.Errorf("%s: %d rejected, %v; want the rejected one", a.name, rejected, err)
					}
				case "Receiver.ReceiveOne", "Session.ReceiveOne":
					var e *queue.RejectedError
					if !errors.As(err, &e) || e.MessageID != "plain" || errors.Is(err, queue.ErrNoMessage) {
						x.Errorf("%s: %v; want the *RejectedError alone", a.name, err)
					}
				default:
					x.failed(a.name, err, queue.ErrNoMessage, "receive")
				}
			}
		})
	})
	t.Run("paused", func(t *testing.T) {
		inBubble(t, nil, func(x *fixture) {
			r := x.Receiver(orders, &queue.ReceiverOptions{Wait: wait, Keys: x.wrongRing(), MaxAuthFailures: 1})
			all := x.fetchings(r)
			x.Send(&queue.Message{Body: []byte("a")})
			x.Nothing(r.Receive(x.Context(), 1)) // it is given back
			for _, a := range all {
				n, rejected, err := a.call(x.Context())
				x.failed(a.name, err, queue.ErrReceivingPaused, "receive")
				if n+rejected != 0 || errors.Is(err, queue.ErrNoMessage) {
					x.Errorf("%s: %d messages, %d rejected, %v; want ErrReceivingPaused alone", a.name, n, rejected, err)
				}
			}
		})
	})
	t.Run("context ended", func(t *testing.T) {
		inBubble(t, nil, func(x *fixture) {
			for _, a := range x.fetchings(x.Receiver(orders, options)) {
				ended, cancel := context.WithCancel(x.Context())
				cancel()
				if _, _, err := a.call(ended); !errors.Is(err, context.Canceled) || errors.Is(err, queue.ErrNoMessage) {
					x.Errorf("%s: %v; want context.Canceled alone", a.name, err)
				}
				short, cancel := context.WithTimeout(x.Context(), time.Second)
				if _, _, err := a.call(short); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, queue.ErrNoMessage) {
					x.Errorf("%s: %v; want context.DeadlineExceeded alone", a.name, err)
				}
				cancel()
			}
		})
	})
	t.Run("session lost", func(t *testing.T) {
		inBubble(t, nil, func(x *fixture) {
			for _, a := range x.fetchings(x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Hour}))[3:] {
				_, _, err := a.call(x.Context()) // its lock ends meanwhile
				x.failed(a.name, err, queue.ErrSessionLost, "receive")
				if errors.Is(err, queue.ErrNoMessage) {
					x.Errorf("%s: %v; want ErrSessionLost alone", a.name, err)
				}
			}
		})
	})
}

// TestNoMessageIsNoFailure: the call to the broker that brought nothing is told as one that
// succeeded, and no line of the log is about it.
func TestNoMessageIsNoFailure(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		o := &receives{}
		r := x.receives(x.behind(&failingBroker{}, func(q *queue.Options) { q.Observer = o }), nil)
		x.Nothing(r.Receive(x.Context(), 10)) // the first call of a process may have something to say
		before := len(x.Log.String())
		o.lines = nil
		for _, a := range x.fetchings(r) {
			_, _, err := a.call(x.Context())
			x.failed(a.name, err, queue.ErrNoMessage, "receive")
		}
		const many, one, waited = "10: 0, 0 links, failed false", "1: 0, 0 links, failed false", "took 1s in a bubble"
		x.told("Receive", o.lines, many, waited, one, waited, many, waited, many, waited, one, waited, many, waited)
		if said := x.Log.String()[before:]; said != "" {
			x.Errorf("the log says %s", said)
		}
	})
}

// TestAllPassesOverNothing: a loop over a Receiver waits on if nothing comes, or if all is
// rejected, and ends with its context; one over a session ends, because it holds the session.
func TestAllPassesOverNothing(t *testing.T) {
	const wait = 5 * time.Second
	inBubble(t, nil, func(x *fixture) {
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: wait})
		ctx, cancel := context.WithCancel(x.Context())
		go func() {
			x.Pass(10 * wait)
			x.Inject(orders, driver.Message{ID: "plain", Body: []byte("a")})
			x.Pass(10 * wait)
			x.Send(&queue.Message{ID: "late", Body: []byte("a")})
			x.Pass(10 * wait)
			cancel()
		}()
		var got []string
		var last error
		for d, err := range r.All(ctx) {
			if last = err; err == nil {
				got = append(got, d.ID)
				x.Must(d.Complete(x.Context()))
			}
		}
		x.told("All", got, "late")
		if last != context.Canceled || len(x.Rejected) != 1 { //nolint:errorlint // it passes through unchanged
			x.Errorf("All ended with %v, %d rejected; want context.Canceled and 1", last, len(x.Rejected))
		}

		s, err := r.AcceptSession(x.Context(), "s")
		x.Must(err)
		begin := time.Now()
		for d, err := range s.All(x.Context()) {
			x.Errorf("an empty session has %v, %v", d, err)
		}
		if took := time.Since(begin); took != wait || s.Context().Err() != nil {
			x.Errorf("All of an empty session took %s, want %s; the session: %v", took, wait, s.Context().Err())
		}
	})
}
