package sbqueue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/worker"
)

// What befalls applications: a pool or a sender over the driver and the SDK, both with their own
// settings, and a service that fails as Service Bus and the networks before it do.

// client returns a client over b that seals, and takes plaintext; if strict, with a replay store.
func client(t *testing.T, b driver.Broker, strict bool) *queue.Client {
	t.Helper()
	key, err := keys.Generate("k1", nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	o := &queue.Options{Keys: ring, Logger: slog.New(slog.DiscardHandler), Crypto: queue.CryptoConfig{
		Enabled: true, PlaintextPolicy: queue.Allow, MaxMessageAge: time.Hour, TrackReplays: strict,
	}}
	if strict {
		if o.ReplayStore, err = replay.NewMemory(nil); err != nil {
			t.Fatal(err)
		}
	}
	c, err := queue.New(b, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("Client.Close: %v", err)
		}
	})
	return c
}

// pool runs a pool over queues of c until the test ends. What Run returns comes on done.
func pool(t *testing.T, c *queue.Client, h worker.HandlerFunc, o *worker.HandleOptions, queues ...string) (done <-chan error) {
	t.Helper()
	p, err := worker.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range queues {
		r, err := c.Receiver(t.Context(), name, &queue.ReceiverOptions{Wait: 2 * time.Second})
		if err == nil {
			err = p.Handle(r, h, o)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { ended <- p.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return ended
}

// sender opens the queue "q" for sending.
func sender(t *testing.T, c *queue.Client) *queue.Sender {
	t.Helper()
	s, err := c.Sender(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// settled reports whether no message of the queue waits, is held or is scheduled.
func (n *namespace) settled() bool {
	st, err := n.Stats("q")
	return err == nil && st.Active+st.Locked+st.Scheduled == 0
}

// deadLetters counts the dead letters of the queue.
func (n *namespace) deadLetters(t *testing.T) int {
	t.Helper()
	st, err := n.Stats("q")
	if err != nil {
		t.Fatal(err)
	}
	return st.DeadLetters
}

// A message is handled once, for as long as half of its lock, whatever the difference between the
// clocks of this machine and of the broker.
func TestHandledUnderAnyClock(t *testing.T) {
	t.Parallel()
	for _, shift := range []time.Duration{-90 * time.Second, -20 * time.Second, 90 * time.Second} {
		for _, sessions := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/sessions=%t", shift, sessions), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: sessions, LockDuration: 30 * time.Second, MaxDeliveryCount: 4})
					c := client(t, n.relayed(t, shiftLocks(shift)).connect(t, n, nil), false)
					m := &queue.Message{Body: []byte("x")}
					if sessions {
						m.SessionID = "s"
					}
					if _, err := sender(t, c).Send(t.Context(), m); err != nil {
						t.Fatal(err)
					}
					var calls atomic.Int64
					pool(t, c, func(ctx context.Context, _ *queue.Delivery) error {
						calls.Add(1)
						if err := after(ctx, 15*time.Second); err != nil {
							t.Errorf("the handler was cancelled: %v", err)
						}
						return nil
					}, &worker.HandleOptions{Sessions: sessions}, "q")
					if ok := eventually(25*time.Second, n.settled); !ok || calls.Load() != 1 || n.deadLetters(t) > 0 {
						t.Errorf("settled: %t, handled %d times, %d dead letters", ok, calls.Load(), n.deadLetters(t))
					}
				})
			})
		}
	}
}

// A clock that is ahead of the broker's by more than the queue locks costs no message.
func TestBacklogUnderAnotherClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{LockDuration: 20 * time.Second, MaxDeliveryCount: 10})
		c := client(t, n.relayed(t, shiftLocks(-25*time.Second)).connect(t, n, nil), false)
		const messages = 100
		var all []*queue.Message
		for range messages {
			all = append(all, &queue.Message{Body: []byte("x")})
		}
		if _, err := sender(t, c).SendBatch(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		var calls atomic.Int64
		pool(t, c, func(context.Context, *queue.Delivery) error {
			calls.Add(1)
			return nil
		}, nil, "q")
		if ok := eventually(20*time.Second, n.settled); !ok || calls.Load() != messages || n.deadLetters(t) > 0 {
			t.Errorf("settled: %t, handled %d times, %d dead letters", ok, calls.Load(), n.deadLetters(t))
		}
	})
}

// The body of another sender's message reaches the handler byte for byte, or the message is a dead
// letter that still has it. It is never handled with another body.
func TestForeignBodiesAreHandled(t *testing.T) {
	t.Parallel()
	const text = `{"order":1}`
	for name, c := range map[string]struct {
		body    azservicebus.AMQPAnnotatedMessageBody
		handled bool
	}{
		"text":     {azservicebus.AMQPAnnotatedMessageBody{Value: text}, true},
		"bytes":    {azservicebus.AMQPAnnotatedMessageBody{Value: []byte(text)}, true},
		"two data": {azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte(text[:5]), []byte(text[5:])}}, true},
		"data":     {azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte(text)}}, true},
		"sequence": {azservicebus.AMQPAnnotatedMessageBody{Sequence: [][]any{{"order", int64(1)}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, nil, sbemulator.QueueOptions{})
			n.sendRaw(t, &azservicebus.AMQPAnnotatedMessage{Body: c.body, Properties: &azservicebus.AMQPAnnotatedMessageProperties{MessageID: "foreign"}})
			bodies := make(chan string, 10)
			pool(t, client(t, n.broker(t), false), func(_ context.Context, d *queue.Delivery) error {
				bodies <- string(d.Body)
				return nil
			}, nil, "q")
			if !eventually(time.Minute, n.settled) {
				t.Fatal("the message is not settled")
			}
			if handled, dead := len(bodies), n.deadLetters(t); handled+dead != 1 || (handled == 1) != c.handled {
				t.Fatalf("handled %d times, %d dead letters; want it handled: %t", handled, dead, c.handled)
			}
			if !c.handled {
				stored, err := n.Messages("q/$DeadLetterQueue")
				if err != nil || len(stored) != 1 {
					t.Errorf("dead letters %+v, %v", stored, err)
				}
				return
			}
			if got := <-bodies; got != text {
				t.Errorf("the handler got %q, want %q", got, text)
			}
		})
	}
}

// A batch that the broker refuses once costs none of the callers of a Batcher their message.
func TestBatcherWhoseBatchIsRefused(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{})
	s := sender(t, client(t, n.broker(t), false))
	n.inject(t, sbemulator.Fault{
		On: sbemulator.OnSend, Action: sbemulator.Refuse, Times: 1, Condition: "amqp:not-allowed",
		Description: "The size quota for the header stream (65536) has been exceeded.",
	})
	b, err := queue.NewBatcher(s, &queue.BatcherOptions{Linger: 100 * time.Millisecond, InFlight: 1})
	if err != nil {
		t.Fatal(err)
	}
	const messages = 50
	var failed atomic.Int64
	for i := range messages {
		if err := b.SendAsync(t.Context(), &queue.Message{ID: fmt.Sprint(i), Body: []byte("x")}, func(r queue.SendResult) {
			if r.Err != nil {
				failed.Add(1)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	st, err := n.Stats("q")
	if f := failed.Load(); err != nil || f > 1 || st.Active != messages-int(f) {
		t.Errorf("%d of %d failed, stored %+v, %v; want one to fail at most", f, messages, st, err)
	}
}

// The answer to sending the copy of a retry with a delay is missing, so that it is stored twice: the
// message is handled once more, with a replay store and without one.
func TestRetryWhoseCopyIsStoredTwice(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("replay store: %t", strict), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := start(t, inMemory(), sbemulator.QueueOptions{LockDuration: 10 * time.Second})
				c := client(t, n.broker(t), strict)
				if _, err := sender(t, c).Send(t.Context(), &queue.Message{ID: "m", Body: []byte("x")}); err != nil {
					t.Fatal(err)
				}
				lost := n.inject(t, sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.DropAfter, Times: 1})
				var calls atomic.Int64
				pool(t, c, func(context.Context, *queue.Delivery) error {
					if calls.Add(1) == 1 {
						return worker.RetryAfter(errors.New("not now"), time.Second)
					}
					return nil
				}, nil, "q")
				ok := eventually(25*time.Second, func() bool { return calls.Load() > 1 && n.settled() })
				_ = after(t.Context(), 30*time.Second) // for another copy
				if !ok || calls.Load() != 2 || n.deadLetters(t) > 0 || lost.Hits() != 1 || !n.settled() {
					t.Errorf("settled: %t, handled %d times, %d dead letters, %d answers lost; want 2, 0, 1", ok, calls.Load(), n.deadLetters(t), lost.Hits())
				}
			})
		})
	}
}

// A queue that is disabled, or not there, for five seconds ends no pool, and is received from
// within a minute.
func TestQueueThatIsDisabledForAWhile(t *testing.T) {
	t.Parallel()
	for _, sessions := range []bool{false, true} {
		for _, condition := range []string{"com.microsoft:entity-disabled", "amqp:not-found"} {
			t.Run(fmt.Sprintf("%s/sessions=%t", condition, sessions), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: sessions})
					c := client(t, n.broker(t), false)
					s := sender(t, c)
					handled := make(chan string, 10)
					done := pool(t, c, func(_ context.Context, d *queue.Delivery) error {
						handled <- d.ID
						return nil
					}, &worker.HandleOptions{Sessions: sessions}, "q")
					_ = after(t.Context(), time.Second)
					disabled := n.inject(t, sbemulator.Fault{On: sbemulator.OnAttach, Action: sbemulator.Refuse, Condition: condition})
					if _, err := n.DetachLinks("q", condition, ""); err != nil {
						t.Fatal(err)
					}
					_ = after(t.Context(), 5*time.Second)
					disabled.Remove()
					m := &queue.Message{ID: "m", Body: []byte("x")}
					if sessions {
						m.SessionID = "s"
					}
					var err error
					if !eventually(20*time.Second, func() bool { _, err = s.Send(t.Context(), m); return err == nil }) {
						t.Fatalf("Send: %v", err)
					}
					if !eventually(time.Minute, func() bool { return len(handled) > 0 }) || disabled.Hits() == 0 {
						t.Errorf("not received within a minute; %d attaches were refused", disabled.Hits())
					}
					if len(done) > 0 {
						t.Errorf("Run has ended: %v", <-done)
					}
				})
			})
		}
	}
}

// A pool over five queues of sessions connects a few times in 15 s while the broker is away, and
// is at work again when it is back.
func TestPoolWhileAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: true})
		r := n.relayed(t, nil)
		c := client(t, r.connect(t, n, nil), false)
		var names []string
		for i := range 5 {
			names = append(names, fmt.Sprint("q", i))
			if err := n.CreateQueue(names[i], &sbemulator.QueueOptions{RequiresSession: true}); err != nil {
				t.Fatal(err)
			}
		}
		handled := make(chan string, 10)
		done := pool(t, c, func(_ context.Context, d *queue.Delivery) error {
			handled <- d.Queue
			return nil
		}, &worker.HandleOptions{Sessions: true}, names...)
		_ = after(t.Context(), time.Second)
		r.takeDials()
		r.setRefuse(true)
		r.cut()
		_ = after(t.Context(), 15*time.Second)
		if dials := r.takeDials(); dials > 30 || dials == 0 {
			t.Errorf("%d connections were tried in 15 s, want a few", dials)
		}
		r.setRefuse(false)
		for _, name := range names {
			s, err := c.Sender(t.Context(), name, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Send(t.Context(), &queue.Message{Body: []byte("x"), SessionID: "s"}); err != nil {
				t.Errorf("Send to %s: %v", name, err)
			}
		}
		if !eventually(time.Minute, func() bool { return len(handled) == len(names) }) {
			t.Errorf("%d of %d queues are at work again within a minute", len(handled), len(names))
		}
		if len(done) > 0 {
			t.Errorf("Run has ended: %v", <-done)
		}
	})
}
