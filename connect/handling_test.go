package connect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/worker"
)

// onEachBroker runs f on each broker, and on each kind of queue that it has.
func onEachBroker(t *testing.T, change func(*queue.Options), f func(*testing.T, *environment)) {
	key, err := keys.Generate("k1", nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(key)
	if err == nil {
		err = ring.SetCurrent("k1")
	}
	if err != nil {
		t.Fatal(err)
	}
	store, err := replay.NewMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	o := queue.Strict(ring, store)
	o.Crypto.MaxMessageAge = time.Hour
	o.Logger = slog.New(slog.DiscardHandler)
	change(o)
	for _, e := range environments(t, o) {
		t.Run(e.name, func(t *testing.T) {
			if e.missing != nil && os.Getenv("QRT_REQUIRE_PEERS") == "1" {
				t.Fatal(e.missing)
			}
			if e.missing != nil {
				t.Skip(e.missing)
			}
			f(t, e)
		})
	}
}

// handleUntil runs a handler until it says that it is done.
func handleUntil(t *testing.T, e *environment, o *worker.HandleOptions, h func(*queue.Delivery) (done bool, err error)) {
	t.Helper()
	pool, err := worker.New(&worker.Options{Concurrency: 4})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	over := make(chan struct{})
	var once sync.Once
	err = pool.Handle(e.receiver, worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
		done, err := h(d)
		if done {
			once.Do(func() { close(over) })
		}
		return err
	}), o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- pool.Run(ctx) }()
	select {
	case <-over:
	case <-ctx.Done():
		t.Error("the handler was not done within a minute")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// With HandleOptions.Sessions a message without a session is handled as a session of its
// own, beside sessions, which stay in order; or it is refused when it is sent.
func TestSessionsAndMessagesWithoutOne(t *testing.T) {
	onEachBroker(t, func(*queue.Options) {}, func(t *testing.T, e *environment) {
		c := e.receiver.Capabilities()
		if c.Sessions == driver.None {
			pool, err := worker.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
			if err := pool.Handle(e.receiver, h, &worker.HandleOptions{Sessions: true}); !errors.Is(err, queue.ErrInvalidOptions) {
				t.Errorf("Handle with Sessions on a queue without them: %v, want ErrInvalidOptions", err)
			}
			return
		}
		const each = 5
		var want []string
		for i := range each {
			_, err := e.sender.Send(t.Context(), &queue.Message{ID: fmt.Sprint("s-", i), SessionID: "s", Body: []byte("x")})
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprint("s-", i))
			_, err = e.sender.Send(t.Context(), &queue.Message{ID: fmt.Sprint("alone-", i), Body: []byte("x")})
			if c.SessionOnly {
				if !refused(err) {
					t.Fatalf("a message without a session to a queue for sessions: %v", err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		alone := each
		if c.SessionOnly {
			alone = 0
		}
		var mu sync.Mutex
		var inOrder []string
		got := make(map[string]int)
		handleUntil(t, e, &worker.HandleOptions{Sessions: true}, func(d *queue.Delivery) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			if d.SessionID == "s" {
				inOrder = append(inOrder, d.ID)
			} else {
				got[d.ID]++
			}
			return len(inOrder) == each && len(got) == alone, nil
		})
		if !slices.Equal(inOrder, want) || len(got) != alone {
			t.Errorf("the session came as %v, and %v without one", inOrder, got)
		}
		for id, n := range got {
			if n != 1 {
				t.Errorf("%s was handled %d times", id, n)
			}
		}
	})
}

// What a handler does to the delivery that it got changes neither what comes again nor the
// dead letter: sealed or not, the next one gets what was sent, and the detail opens.
func TestHandlerThatChangesItsDelivery(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		plain := func(o *queue.Options) {
			if !sealed {
				o.Crypto.Enabled, o.Crypto.PlaintextPolicy = false, queue.Allow
			}
		}
		t.Run(fmt.Sprintf("sealed %t", sealed), func(t *testing.T) {
			onEachBroker(t, plain, func(t *testing.T, e *environment) {
				m := &queue.Message{ID: "m", Body: []byte("pay 100"), Attributes: map[string]string{"a": "1", "b": "2"}}
				if e.receiver.Capabilities().Sessions != driver.None {
					m.SessionID = "s"
				}
				body, attributes := bytes.Clone(m.Body), maps.Clone(m.Attributes)
				if _, err := e.sender.Send(t.Context(), m); err != nil {
					t.Fatal(err)
				}
				tries := 0
				handleUntil(t, e, nil, func(d *queue.Delivery) (bool, error) {
					tries++
					if !bytes.Equal(d.Body, body) || !maps.Equal(d.Attributes, attributes) {
						t.Errorf("try %d: body %q, attributes %v", tries, d.Body, d.Attributes)
					}
					copy(d.Body, "PWN")
					clear(d.Attributes)
					d.Attributes["c"] = "3"
					d.ID, d.CorrelationID, d.ContentType = "other", "other", "other"
					if tries < 3 {
						return false, worker.RetryAfter(nil, time.Duration(tries-1)*time.Second) // at once, then later
					}
					return true, worker.Permanent(errors.New("why it failed"), "odd")
				})
				letters, err := deadletter.Open(t.Context(), e.receiver.Client(), portableQueue, nil)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for l, err := range letters.All(t.Context(), nil) {
					if err != nil {
						t.Fatal(err)
					}
					n++
					if l.Err != nil || l.ID != "m" || !bytes.Equal(l.Body, body) || !maps.Equal(l.Attributes, attributes) {
						t.Errorf("dead letter %s, %v: body %q, attributes %v", l.ID, l.Err, l.Body, l.Attributes)
					}
					if l.DeadLetter.Reason != "odd" {
						t.Errorf("reason %s", l.DeadLetter.Reason)
					}
					if sealed != strings.Contains(l.Detail, "why it failed") || l.DetailErr != nil {
						t.Errorf("detail %q, %v", l.Detail, l.DetailErr)
					}
				}
				if purged, err := letters.Purge(t.Context(), &deadletter.Filter{}); err != nil || n != 1 || purged != 1 {
					t.Errorf("%d dead letters, %d purged, %v; want 1", n, purged, err)
				}
			})
		})
	}
}
