package kvkeys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/worker"
)

// line is a sender and a receiver that share nothing but the broker and the
// vault, each with a cache of its own.
type line struct {
	vault    *vault
	broker   *memqueue.Broker
	client   *queue.Client // the receiver's
	sender   *queue.Sender
	receiver *queue.Receiver

	mu       sync.Mutex
	handled  map[string]int // by message ID, how often
	under    map[keys.ID]int
	most     int // deliveries of one message
	rejected map[string]int
}

func newLine(t *testing.T, v *vault, layout Layout, o keys.CachedOptions) *line {
	t.Helper()
	l := &line{vault: v, broker: memqueue.New(nil), handled: make(map[string]int), under: make(map[keys.ID]int), rejected: make(map[string]int)}
	client := func() *queue.Client {
		c, err := queue.New(l.broker, &queue.Options{
			Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, MaxMessageAge: 24 * time.Hour},
			Keys:   cached(t, v.provider(t, "k", layout), o),
			Logger: slog.New(slog.DiscardHandler),
			OnRejected: func(_ context.Context, e *queue.RejectedError) {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.rejected[e.Reason]++
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var err error
	if l.sender, err = client().Sender(t.Context(), "pulls", nil); err != nil {
		t.Fatal(err)
	}
	l.client = client()
	if l.receiver, err = l.client.Receiver(t.Context(), "pulls", &queue.ReceiverOptions{Wait: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	return l
}

// process runs a processor until stop is called.
func (l *line) process(t *testing.T) (stop func()) {
	t.Helper()
	p, err := worker.New(&worker.Options{Concurrency: 4})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Handle(l.receiver, worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.handled[d.ID]++
		l.under[d.KeyID]++
		l.most = max(l.most, d.Count)
		return nil
	}), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// send sends n messages, whose IDs begin with that word.
func (l *line) send(t *testing.T, word string, n int) {
	t.Helper()
	for i := range n {
		if _, err := l.sender.Send(t.Context(), &queue.Message{ID: fmt.Sprintf("%s-%d", word, i), Body: []byte("payload")}); err != nil {
			t.Fatal(err)
		}
	}
}

// refuses fails the test unless a message cannot be sent, for that reason.
func (l *line) refuses(t *testing.T, want error) {
	t.Helper()
	if _, err := l.sender.Send(t.Context(), &queue.Message{Body: []byte("payload")}); !errors.Is(err, queue.ErrEncryptionFailed) || !errors.Is(err, want) {
		t.Errorf("a send without a usable key: %v, want %v", err, want)
	}
}

// wants fails the test unless so many messages were handled, each once, and so
// many are among the dead letters.
func (l *line) wants(t *testing.T, handled int, dead int64) {
	t.Helper()
	s, err := l.receiver.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.handled) != handled || s.DeadLetters != dead {
		t.Errorf("%d messages handled, %d dead letters, want %d and %d; rejected %v", len(l.handled), s.DeadLetters, handled, dead, l.rejected)
	}
	for id, n := range l.handled {
		if n != 1 {
			t.Errorf("%s was handled %d times", id, n)
		}
	}
}

// clean fails the test if any message was rejected.
func (l *line) clean(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rejected) != 0 {
		t.Errorf("rejected: %v", l.rejected)
	}
}

// keyIn adds a key in either layout.
func (v *vault) keyIn(layout Layout, id keys.ID, secret byte, tag string) *version {
	x := keyVersion(secret, tag)
	x.tags[TagID] = string(id)
	if layout == Versions {
		return v.add("k", x)
	}
	return v.add("k--"+string(id), x)
}

// peakLimit bounds the requests of a sender and a receiver in any ten seconds, of
// the 2,000 that a vault serves.
const peakLimit = 32

// Keys are rotated three times while messages flow, and not one message fails: by
// distributing first, by a not-before date, and in one step.
func TestRotationInFlow(t *testing.T) {
	for name, layout := range map[string]Layout{"secrets": Secrets, "versions": Versions} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { rotate(t, layout) })
		})
	}
}

func rotate(t *testing.T, layout Layout) {
	v := newPipedVault(t)
	a := v.keyIn(layout, "a", 1, Current)
	l := newLine(t, v, layout, short)
	stop := l.process(t)
	sent := 0
	flowing, finish := context.WithCancel(t.Context())
	var sender sync.WaitGroup
	sender.Go(func() {
		for ; flowing.Err() == nil; sent++ {
			if _, err := l.sender.Send(t.Context(), &queue.Message{ID: fmt.Sprint(sent), Body: []byte("payload")}); err != nil {
				t.Errorf("send: %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	const step = time.Minute // the caches' time and more
	time.Sleep(step)
	b := v.keyIn(layout, "b", 2, Valid) // distributed
	time.Sleep(step)
	v.mark(b, Current) // made current
	time.Sleep(step)
	v.disable(a, true) // retired

	c := keyVersion(3, Current) // the same, prepared in one step
	c.tags[TagID], c.notBefore = "c", time.Now().Add(step)
	secret := "k"
	if layout == Secrets {
		secret = "k--c"
	}
	v.add(secret, c)
	time.Sleep(2 * step)
	v.disable(b, true)

	// At once: receivers meet it before their list does, and give the first
	// messages back until it has come. Nothing fails, it only takes longer.
	l.clean(t)
	v.keyIn(layout, "d", 4, Current)
	time.Sleep(3 * step)
	v.disable(c, true)
	time.Sleep(step)
	finish()
	sender.Wait()
	time.Sleep(10 * time.Minute)
	stop()
	l.wants(t, sent, 0)
	for _, id := range []keys.ID{"a", "b", "c", "d"} {
		if l.under[id] == 0 {
			t.Errorf("no message under key %s: %v", id, l.under)
		}
	}
	if peak := v.peak(); peak > peakLimit {
		t.Errorf("%d requests in ten seconds", peak)
	}
	t.Logf("%d messages, %v, rejected %v, %d requests, at most %d in ten seconds", sent, l.under, l.rejected, v.total(), v.peak())
}

// What a sender and a receiver in full use ask of a vault in an hour, with the
// cache's defaults, of the 720,000 requests that it serves in that time.
func TestRequestsPerHour(t *testing.T) {
	for name, layout := range map[string]Layout{"secrets": Secrets, "versions": Versions} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newPipedVault(t)
				v.keyIn(layout, "a", 1, Valid)
				v.keyIn(layout, "b", 2, Current)
				l := newLine(t, v, layout, keys.CachedOptions{})
				stop := l.process(t)
				for i := range 3600 {
					l.send(t, fmt.Sprint(i), 1)
					time.Sleep(time.Second)
				}
				stop()
				l.wants(t, 3600, 0)
				l.clean(t)
				if n := v.total(); n > 180 {
					t.Errorf("%d requests in an hour, want 180 at most", n)
				}
				t.Logf("%d requests in an hour, at most %d in ten seconds: %v", v.total(), v.peak(), maps.Clone(v.calls))
			})
		})
	}
}

// A key that is disabled, deleted or not marked is one that is no more: messages
// under it are given back, and dead-lettered when RotationHorizon is over, while
// those under other keys flow. When it is back, they can be redriven.
func TestWithdrawnKey(t *testing.T) {
	for name, c := range map[string]struct {
		layout         Layout
		withdraw, back func(*vault, *version)
	}{
		"disabled":            {Secrets, func(v *vault, x *version) { v.disable(x, true) }, func(v *vault, x *version) { v.disable(x, false) }},
		"disabled version":    {Versions, func(v *vault, x *version) { v.disable(x, true) }, func(v *vault, x *version) { v.disable(x, false) }},
		"deleted":             {Secrets, func(v *vault, _ *version) { v.remove("k--a") }, func(v *vault, x *version) { v.add("k--a", x) }},
		"not marked any more": {Secrets, func(v *vault, x *version) { v.mark(x, "") }, func(v *vault, x *version) { v.mark(x, Valid) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newPipedVault(t)
				a := v.keyIn(c.layout, "a", 1, Current)
				l := newLine(t, v, c.layout, short)
				l.send(t, "old", 20)
				time.Sleep(time.Second)
				v.keyIn(c.layout, "b", 2, Current)
				c.withdraw(v, a)
				time.Sleep(time.Minute)
				stop := l.process(t)
				for i := range 20 {
					l.send(t, fmt.Sprint("new-", i), 1)
					time.Sleep(30 * time.Second)
				}
				l.wants(t, 20, 0) // not yet: the key may come
				time.Sleep(time.Hour)
				l.wants(t, 20, 20)
				if l.rejected["key_not_found"] < 20 || len(l.rejected) != 1 {
					t.Errorf("rejected: %v", l.rejected)
				}
				c.back(v, a)
				time.Sleep(time.Minute)
				dead, err := deadletter.Open(t.Context(), l.client, "pulls", nil)
				if err != nil {
					t.Fatal(err)
				}
				report, err := dead.Redrive(t.Context(), &deadletter.RedriveOptions{Filter: &deadletter.Filter{Reasons: []string{"key_not_found"}}})
				if err != nil || report.Redriven != 20 {
					t.Errorf("%+v, %v; want 20 redriven", report, err)
				}
				time.Sleep(10 * time.Minute)
				stop()
				l.wants(t, 40, 0)
				if err := dead.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// The current key is disabled, and there is no other: nothing is sent, in
// particular nothing in the clear.
func TestDisabledCurrentKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newPipedVault(t)
		a := v.keyIn(Secrets, "a", 1, Current)
		l := newLine(t, v, Secrets, short)
		l.send(t, "old", 1)
		v.disable(a, true)
		time.Sleep(time.Minute)
		l.refuses(t, keys.ErrNotFound)
		if s, err := l.receiver.Stats(t.Context()); err != nil || s.Ready != 1 {
			t.Errorf("%+v, %v; want the message ready", s, err)
		}
		v.disable(a, false)
		time.Sleep(time.Minute)
		l.send(t, "new", 1)
	})
}

// An expired key seals nothing any more and opens what was sealed.
func TestExpiredKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newPipedVault(t)
		a := v.keyIn(Versions, "a", 1, Current)
		v.set(a, func(x *version) { x.expires = time.Now().Add(time.Hour) })
		l := newLine(t, v, Versions, short)
		l.send(t, "old", 20)
		time.Sleep(time.Hour)
		l.refuses(t, keys.ErrExpired)
		stop := l.process(t)
		time.Sleep(time.Minute)
		l.wants(t, 20, 0)
		l.clean(t)
		v.keyIn(Versions, "b", 2, Current)
		time.Sleep(time.Minute)
		l.send(t, "new", 20)
		time.Sleep(time.Minute)
		stop()
		l.wants(t, 40, 0)
		l.clean(t)
	})
}

// A key whose time has not come seals nothing yet. A message under it, from a
// sender whose clock is ahead, is opened.
func TestNotYetValidKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newPipedVault(t)
		a := v.keyIn(Secrets, "a", 1, Current)
		ahead := newLine(t, v, Secrets, short)
		ahead.send(t, "ahead", 20)
		l := newLine(t, v, Secrets, short)
		v.set(a, func(x *version) { x.notBefore = time.Now().Add(time.Hour) })
		time.Sleep(time.Minute) // until the list of keys is old
		l.refuses(t, keys.ErrNotFound)
		if s, err := l.receiver.Stats(t.Context()); err != nil || s.Ready != 0 {
			t.Errorf("%+v, %v; want nothing ready", s, err)
		}
		stop := ahead.process(t)
		time.Sleep(time.Minute)
		stop()
		ahead.wants(t, 20, 0)
		ahead.clean(t)
		time.Sleep(time.Hour)
		l.send(t, "in time", 20)
		stop = l.process(t)
		time.Sleep(time.Minute)
		stop()
		l.wants(t, 20, 0)
		l.clean(t)
	})
}

// While the vault throttles, programs that have keys go on with them, programs that have
// none wait, and no request is made before the time that it names.
func TestThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newPipedVault(t)
		v.keyIn(Secrets, "a", 1, Current)
		warm := newLine(t, v, Secrets, keys.CachedOptions{TTL: 20 * time.Second, ListTTL: 10 * time.Second, MaxStale: time.Hour})
		warm.send(t, "before", 10)
		stopWarm := warm.process(t)
		time.Sleep(5 * time.Second)
		warm.wants(t, 10, 0)

		v.fail(fault{status: 429, code: "Throttled", retry: "60"})
		cold := newLine(t, v, Secrets, short)
		cold.refuses(t, keys.ErrUnavailable)
		cold.inject(t, "a", 1, 10)
		stopCold := cold.process(t)
		before := v.answered()
		const minutes = 20
		for i := range minutes {
			warm.send(t, fmt.Sprint("while-", i), 1)
			time.Sleep(time.Minute)
		}
		warm.wants(t, 10+minutes, 0)
		warm.clean(t)
		cold.wants(t, 0, 0)
		// Each of the four connect asks once in the vault's time. Only at first,
		// when none knows yet, may its three questions go out side by side.
		if n := v.answered() - before; n > 4*(minutes+3) {
			t.Errorf("%d requests in %d minutes, want one a minute and provider", n, minutes)
		} else {
			t.Logf("%d requests of four connect in %d minutes of Retry-After: 60", n, minutes)
		}
		v.fail(fault{})
		time.Sleep(10 * time.Minute)
		stopCold()
		stopWarm()
		cold.wants(t, 10, 0)
		if cold.most > 5 {
			t.Errorf("%d deliveries of one message", cold.most)
		}
	})
}

// inject sends n messages by a sender that has the key at hand.
func (l *line) inject(t *testing.T, id keys.ID, secret byte, n int) {
	t.Helper()
	k, err := keys.New(id, secretOf(secret), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := keys.NewRing(k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := queue.New(l.broker, &queue.Options{
		Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, MaxMessageAge: 24 * time.Hour},
		Keys:   r, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Sender(t.Context(), "pulls", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := s.Send(t.Context(), &queue.Message{ID: fmt.Sprint("injected-", i), Body: []byte("payload")}); err != nil {
			t.Fatal(err)
		}
	}
}

// While the vault cannot be asked, for whatever reason, and the cached keys are
// past their time, nothing is fetched: no delivery count runs out and nothing is
// dead-lettered. When it answers again everything is handled.
func TestOutage(t *testing.T) {
	for name, f := range map[string]fault{
		"connections cut":    {drop: true},
		"away":               {status: 503},
		"token refused":      {status: 401},
		"permission revoked": {status: 403, code: "ForbiddenByRbac"},
		"vault gone":         {status: 404, code: "VaultNotFound"},
		"throttled":          {status: 429, retry: "120"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newPipedVault(t)
				if f.drop {
					// The transport itself repeats a request if a connection that it has used
					// before ends: those are not counted.
					v.http.Transport.(*http.Transport).DisableKeepAlives = true //nolint:errcheck,forcetypeassert // serve made it
				}
				v.keyIn(Secrets, "a", 1, Current)
				l := newLine(t, v, Secrets, short)
				const n = 50
				l.send(t, "m", n)
				v.fail(f)
				begin := v.total()
				stop := l.process(t)
				time.Sleep(2 * time.Hour)
				l.wants(t, 0, 0)
				l.refuses(t, keys.ErrUnavailable)
				requests := v.total() - begin
				v.fail(fault{})
				time.Sleep(10 * time.Minute)
				stop()
				l.wants(t, n, 0)
				if l.most > 5 {
					t.Errorf("%d deliveries of one message", l.most)
				}
				if peak := v.peak(); peak > peakLimit {
					t.Errorf("%d requests in ten seconds", peak)
				}
				t.Logf("2 h: %d requests, at most %d in ten seconds; %d messages handled afterwards, at most %d deliveries each", requests, v.peak(), len(l.handled), l.most)
			})
		})
	}
}

// A value that is no key stops receiving and sending until it is corrected.
// Nothing is dead-lettered for it.
func TestUnusableValue(t *testing.T) {
	for name, value := range map[string]string{
		"wrong size": "dG9vIHNob3J0",
		"bad base64": "not base64 at all, 44 characters or otherwise",
		"":           "",
	} {
		t.Run("value "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newPipedVault(t)
				good := v.keyIn(Secrets, "a", 1, Current)
				l := newLine(t, v, Secrets, short)
				l.send(t, "m", 20)
				v.disable(good, true)
				bad := keyVersion(1, Current)
				bad.value = value
				v.add("k--a", bad)
				time.Sleep(time.Minute)
				stop := l.process(t)
				time.Sleep(2 * time.Hour)
				l.wants(t, 0, 0)
				l.refuses(t, keys.ErrInvalidKey)
				v.disable(bad, true)
				v.keyIn(Secrets, "a", 1, Current)
				time.Sleep(10 * time.Minute)
				stop()
				l.wants(t, 20, 0)
			})
		})
	}
}

// The wrong secret is put under a key's ID before the receiver starts. Its messages wait, and
// are handled once the secret is corrected, without a restart.
func TestCorrectedSecret(t *testing.T) {
	for layout, name := range map[Layout]string{Secrets: "secrets", Versions: "versions"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newPipedVault(t)
				good := v.keyIn(layout, "a", 1, Current)
				l := newLine(t, v, layout, short)
				const n = 100 // more than the failures after which receiving pauses
				l.send(t, "m", n)
				v.disable(good, true)
				wrong := v.keyIn(layout, "a", 2, Current)
				stop := l.process(t)
				time.Sleep(2 * time.Hour)
				l.wants(t, 0, 0)
				v.disable(wrong, true)
				v.keyIn(layout, "a", 1, Current)
				time.Sleep(10 * time.Minute)
				stop()
				l.wants(t, n, 0)
			})
		})
	}
}

// Another value is put into the secret of a key in use. A program that has the key goes
// on with it for as long as it may be stale; a program that starts now waits. No message
// is judged under the wrong value.
func TestOverwrittenKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newPipedVault(t)
		v.keyIn(Secrets, "a", 1, Current)
		l := newLine(t, v, Secrets, keys.CachedOptions{TTL: 20 * time.Second, ListTTL: 10 * time.Second, MaxStale: time.Hour})
		stop := l.process(t)
		l.send(t, "before", 10)
		time.Sleep(time.Minute)
		wrong := v.keyIn(Secrets, "a", 2, Current)
		for i := range 20 {
			l.send(t, fmt.Sprint("while-", i), 1)
			time.Sleep(time.Minute)
		}
		l.wants(t, 30, 0)
		l.clean(t)
		fresh := newLine(t, v, Secrets, short)
		fresh.refuses(t, keys.ErrInvalidKey)
		v.disable(wrong, true) // the latest is disabled: so is the key
		v.keyIn(Secrets, "a", 1, Current)
		v.set(v.secrets["k--a"][0], func(x *version) { x.disabled = true })
		time.Sleep(time.Minute)
		l.send(t, "after", 10)
		time.Sleep(time.Minute)
		stop()
		l.wants(t, 40, 0)
		l.clean(t)
	})
}

// floodRequests is the most that a flood of messages under forged key IDs may cost
// at the vault: the challenge, one list for each of the cache's list times that the
// flood lasts, and the fetch of the genuine key.
const floodRequests = 12

// 100,000 messages with random key IDs cost a handful of requests, and a genuine
// message among them is delivered.
func TestFloodOfMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newPipedVault(t)
		v.keyIn(Secrets, "a", 1, Current)
		l := newLine(t, v, Secrets, short)
		l.send(t, "genuine", 1)
		q, err := l.broker.Open(t.Context(), "pulls", nil)
		if err != nil {
			t.Fatal(err)
		}
		// A forged envelope is a genuine one with another key ID.
		d, err := q.Receive(t.Context(), 1, 0)
		if err != nil || len(d) != 1 {
			t.Fatalf("%d, %v", len(d), err)
		}
		const at = 80 // of the key ID, with no void ranges (qre1, Section 2.1)
		if head := string(d[0].Body[at-1 : at+1]); head != "\x01a" {
			t.Fatalf("the key ID is not where it was: %q", head)
		}
		const flood = 100_000
		batch := make([]*driver.Message, 0, 100)
		for i := range flood {
			id := forged(i)
			body := append([]byte{}, d[0].Body[:at-1]...)
			body = append(append(append(body, byte(len(id))), id...), d[0].Body[at+1:]...)
			if batch = append(batch, &driver.Message{ID: fmt.Sprint(i), Body: body, Sealed: true}); len(batch) == cap(batch) {
				for _, r := range q.Send(t.Context(), batch) {
					if r.Err != nil {
						t.Fatal(r.Err)
					}
				}
				batch = batch[:0]
			}
		}
		if err := q.Settle(t.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.Abandon}})[0]; err != nil {
			t.Fatal(err)
		}
		before := v.total()
		delivered := 0
		for rejected := 0; rejected < flood; rejected = l.rejections() {
			good, err := l.receiver.Receive(t.Context(), 1000)
			if err != nil && !errors.Is(err, queue.ErrNoMessage) {
				t.Fatal(err)
			}
			for _, d := range good {
				if d.ID != "genuine-0" {
					t.Fatalf("delivered %s", d.ID)
				}
				delivered++
				if err := d.Complete(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		requests := v.total() - before
		if delivered != 1 || requests > floodRequests {
			t.Errorf("%d genuine messages delivered, %d requests for %v, want at most %d", delivered, requests, l.rejected, floodRequests)
		}
		l.wants(t, 0, 0) // no dead letters: a key that is not known yet may come
		t.Logf("%d forged messages: %d requests, %v", flood, requests, maps.Clone(v.calls))
	})
}

func (l *line) rejections() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.rejected {
		n += c
	}
	return n
}
