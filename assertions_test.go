package queue_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// Assertions of docs/assertions.md that have no test elsewhere.

func TestFreshness(t *testing.T) {
	untracked := func(_ *fixture, o *queue.Options) { o.Crypto.TrackReplays = false }
	inBubble(t, untracked, func(x *fixture) {
		r := x.Receiver(orders, nil)
		x.Inject(orders, x.sealed("ten", time.Now().Add(-10*time.Minute), time.Time{}))
		x.None(r, queue.ErrMessageExpired)
		x.Inject(orders, x.sealed("two", time.Now().Add(-2*time.Minute), time.Time{}))
		x.Must(x.One(r).Complete(x.Context()))
		lax := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Crypto: &queue.CryptoConfig{Enabled: true, InsecureSkipFreshness: true, Loosen: true}})
		x.Inject(orders, x.sealed("year", time.Now().Add(-365*24*time.Hour), time.Time{}))
		x.Must(x.One(lax).Complete(x.Context()))
	})
}

// A rotation in the middle of traffic: nothing is lost, and each message says
// which key it needs.
func TestRotation(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s, r := x.Sender(orders), x.Receiver(orders, nil)
		const n = 300
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range n {
				if i == n/2 {
					x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
					x.Must(x.Ring.SetCurrent("k2"))
				}
				_, err := s.Send(x.Context(), &queue.Message{ID: fmt.Sprint(i), Body: []byte("x")})
				x.Must(err)
			}
		})
		byKey := map[string]int{}
		for got := 0; got < n; got++ {
			d := x.One(r)
			byKey[string(d.KeyID)]++
			x.Must(d.Complete(x.Context()))
		}
		wg.Wait()
		if byKey["k1"] != n/2 || byKey["k2"] != n/2 {
			x.Errorf("by key %v", byKey)
		}
	})
}

func TestDisabledByDefault(t *testing.T) {
	var asked *countingProvider
	zero := func(x *fixture, o *queue.Options) {
		asked = &countingProvider{Provider: x.Ring}
		*o = queue.Options{Logger: quiet(), Keys: asked}
	}
	inBubble(t, zero, func(x *fixture) {
		body := []byte("plain")
		x.Send(&queue.Message{ID: "m", Body: body})
		stored := x.Steal()
		if string(stored.Body) != "plain" || stored.Sealed {
			x.Errorf("stored %q, sealed %t", stored.Body, stored.Sealed)
		}
		if d := x.One(x.Receiver(orders, nil)); d.Encrypted || string(d.Body) != "plain" {
			x.Errorf("received %+v, want the plaintext message", d.Received)
		}
		// No cost: nothing of the cryptography is even asked.
		if n := asked.calls.Load(); n != 0 {
			x.Errorf("%d calls to the key provider for plaintext", n)
		}
	})
}

func TestUnknownVersion(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		m := x.sealed("m", time.Now(), time.Time{})
		m.Body[4] = 2
		x.inject2(orders, m)
		rejected := x.None(x.Receiver(orders, nil), queue.ErrUnsupportedVersion)
		if rejected.Disposition != driver.DeadLettered || rejected.Reason != "unsupported_version" {
			x.Errorf("%+v, want dead-lettered: the version was not announced", rejected)
		}
	})
}

// A message of a version that was announced waits for the upgrade of its receiver.
func TestAnnouncedVersion(t *testing.T) {
	announced := func(_ *fixture, o *queue.Options) { o.Crypto.AcceptedVersions = []uint8{1, 2} }
	inBubble(t, announced, func(x *fixture) {
		m := x.sealed("m", time.Now(), time.Time{})
		m.Body[4] = 2
		x.inject2(orders, m)
		rejected := x.None(x.Receiver(orders, nil), queue.ErrUnsupportedVersion)
		if rejected.Disposition != driver.Abandoned || rejected.Delay <= 0 {
			x.Errorf("%+v: a newer sender during an upgrade that was announced must not lose messages", rejected)
		}
	})
}

// The commitment is compared in constant time wherever it is compared.
func TestConstantTimeCompare(t *testing.T) {
	src, err := os.ReadFile("envelope/opener.go")
	if err != nil {
		t.Fatal(err)
	}
	text := string(src)
	if !strings.Contains(text, "subtle.ConstantTimeCompare(k.commitment[:], m.Commitment[:])") {
		t.Error("the commitment is not compared by subtle.ConstantTimeCompare")
	}
	for _, bad := range []string{"bytes.Equal", "commitment ==", "Commitment =="} {
		if strings.Contains(text, bad) {
			t.Errorf("opener.go compares with %q", bad)
		}
	}
}

// recorder is an Observer that remembers.
type recorder struct {
	observe.Func
	mu     sync.Mutex
	events []any
	ops    []string
}

func newRecorder(t *testing.T, queue string) *recorder {
	r := &recorder{}
	r.Func = func(_ context.Context, s observe.Source, event any) {
		if s.Queue != queue {
			t.Errorf("event of queue %q, want %q", s.Queue, queue)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, event)
	}
	return r
}

func (r *recorder) Traces() bool { return true }

func (r *recorder) Begin(ctx context.Context, s observe.Source, op observe.Operation) (context.Context, func(observe.Result)) {
	return ctx, func(res observe.Result) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops = append(r.ops, fmt.Sprintf("%s %s %s %d %t", op.Kind, op.Disposition, s.Queue, res.Count, res.Err == nil))
	}
}

func (r *recorder) Inject(_ context.Context, set func(string, string)) {
	set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	set("baggage", "not carried")
}

type traceKey struct{}

func (r *recorder) Extract(ctx context.Context, get func(string) string) context.Context {
	return context.WithValue(ctx, traceKey{}, get("traceparent"))
}

// kinds names each event, with its reason if it has one.
func (r *recorder) kinds() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.events {
		s := strings.TrimPrefix(fmt.Sprintf("%T", e), "observe.")
		switch e := e.(type) {
		case observe.CryptoError:
			s += ":" + e.Reason
		case observe.Rejected:
			s += ":" + e.Reason + ":" + string(e.Disposition)
		case observe.DeadLettered:
			s += ":" + e.Reason
		}
		out = append(out, s)
	}
	return out
}

func TestObserverEvents(t *testing.T) {
	rec := newRecorder(t, orders)
	observed := func(_ *fixture, o *queue.Options) {
		o.Observer = rec
		o.Environment = "test"
		o.Crypto.PlaintextPolicy = queue.AllowWithAlert
	}
	inBubble(t, observed, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		r := x.Receiver(orders, nil)
		d := x.One(r)
		if got := d.Context(x.Context()).Value(traceKey{}); got != "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" {
			x.Errorf("trace %v", got)
		}
		x.Must(d.Renew(x.Context()))
		x.Must(d.Complete(x.Context()))
		x.Inject(orders, driver.Message{ID: "p", Body: []byte("plain")})
		x.Must(x.One(r).DeadLetter(x.Context(), queue.Reason{Code: "odd"}))
		m := x.sealed("bad", time.Now(), time.Time{})
		m.Body[len(m.Body)-1] ^= 1
		x.Inject(orders, m)
		x.None(r, queue.ErrAuthenticationFailed)
		want := []string{
			"Configured", "Sealed", "KeyUsed", "Sent", "Configured", "Accounted", "Opened", "Received", "Renewed",
			"CryptoError:plaintext_allowed", "Received", "DeadLettered:odd",
			"Opened", "CryptoError:authentication_failed", "Rejected:authentication_failed:dead_lettered",
			"DeadLettered:authentication_failed",
		}
		synctest.Wait() // for the account
		got := rec.kinds()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			x.Errorf("events\n%v, want\n%v", got, want)
		}
		if !slices.Equal(rec.ops, []string{
			"send  orders 1 true", "receive  orders 1 true", "settle completed orders 1 true",
			"receive  orders 1 true", "settle dead_lettered orders 1 true", "receive  orders 1 true",
		}) {
			x.Errorf("operations %q", rec.ops)
		}
	})
}

// A Rejected error of ReceiveOne is found by errors.Is and errors.As.
func TestRejectedErrorUnwraps(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.inject2(orders, driver.Message{ID: "p", Body: []byte("plain")})
		_, err := x.Receiver(orders, nil).ReceiveOne(x.Context())
		var rejected *queue.RejectedError
		if !errors.As(err, &rejected) || !errors.Is(err, queue.ErrUnencryptedMessage) || queue.ReasonOf(err) != "plaintext_rejected" {
			x.Errorf("%v, want a RejectedError for plaintext_rejected", err)
		}
		if strings.Contains(err.Error(), "plain ") {
			x.Errorf("%v holds payload", err)
		}
	})
}
