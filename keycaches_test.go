package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/drbg"
	"github.com/queue-runtime/queue/keys"
)

// secretStore is a key provider as a service behind a network is one: it makes a
// new *keys.Key for each answer, and each of its calls can fail alone.
type secretStore struct {
	mu      sync.Mutex // guards what follows
	secrets map[keys.ID]byte
	hidden  keys.ID // GetKey answers for it, and the list does not have it
	fail    func(call string) error
	takes   time.Duration
	calls   map[string]int
	first   map[keys.ID]weak.Pointer[keys.Key] // the first *Key of each ID
}

func newSecretStore() *secretStore {
	return &secretStore{secrets: map[keys.ID]byte{"k1": 1}, calls: make(map[string]int), first: make(map[keys.ID]weak.Pointer[keys.Key])}
}

func (s *secretStore) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *secretStore) count(call string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[call]
}

func (s *secretStore) ask(ctx context.Context, call string) error {
	s.mu.Lock()
	s.calls[call]++
	takes, fail := s.takes, s.fail
	s.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if fail != nil {
		return fail(call)
	}
	return nil
}

func (s *secretStore) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	if err := s.ask(ctx, "GetKey"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.secrets[id]
	if !ok {
		return nil, fmt.Errorf("store: %w", keys.ErrNotFound)
	}
	k, err := keys.New(id, bytes.Repeat([]byte{b}, keys.Size), nil)
	if err != nil {
		return nil, err
	}
	if _, ok := s.first[id]; !ok {
		s.first[id] = weak.Make(k)
	}
	return k, nil
}

func (s *secretStore) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	if err := s.ask(ctx, "CurrentKeyID"); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.secrets["k1"]; ok && s.hidden != "k1" {
		return "k1", nil
	}
	return "k2", nil
}

func (s *secretStore) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	if err := s.ask(ctx, "ValidKeyIDs"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []keys.ID
	for id := range s.secrets {
		if id != s.hidden {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// inStore runs f with a fixture whose client has its keys from a store.
func inStore(t *testing.T, f func(*fixture, *secretStore)) {
	t.Helper()
	s := newSecretStore()
	inBubble(t, func(_ *fixture, o *queue.Options) {
		o.Keys, o.Crypto.MaxMessageAge = s, 4*time.Hour
	}, func(x *fixture) { f(x, s) })
}

// A message under a key that left the list of valid keys is refused although the
// provider still answers for the key, and although its messages go on coming.
func TestRetiredKeyIsRefused(t *testing.T) {
	inStore(t, func(x *fixture, s *secretStore) {
		x.Send(&queue.Message{Body: []byte("a")})
		sealed := x.Steal()
		r := x.Receiver(orders, withoutLimit)
		x.Must(x.One(r).Complete(x.Context()))
		s.set(func() { s.secrets["k2"], s.hidden = 2, "k1" })
		begin := time.Now()
		for {
			sealed.ID = fmt.Sprint(time.Since(begin)) // not authentic, if the key is valid
			x.Inject(orders, sealed)
			_, err := r.ReceiveOne(x.Context())
			if errors.Is(err, queue.ErrKeyNotFound) {
				break
			}
			if !errors.Is(err, queue.ErrAuthenticationFailed) {
				x.Fatalf("ReceiveOne = %v", err)
			}
			if time.Since(begin) > 2*time.Minute {
				x.Fatalf("the retired key is valid after %v", time.Since(begin))
			}
			x.Wait(10 * time.Second)
		}
	})
}

// The ciphers of a key are let go of when its ID leaves the list, in senders and
// in receivers, without a message that asks for the key. A cipher is kept beside
// the *Key that it came from, so that it is gone when that can be collected.
func TestRetiredKeyIsLetGo(t *testing.T) {
	t.Cleanup(drbg.Prime) // collecting garbage empties the generator's pool
	collected := func(x *fixture, p weak.Pointer[keys.Key]) {
		x.Helper()
		synctest.Wait()
		for range 10 {
			if runtime.GC(); p.Value() == nil {
				return
			}
		}
		x.Error("the retired key is still reachable")
	}
	t.Run("store", func(t *testing.T) {
		inStore(t, func(x *fixture, s *secretStore) {
			r := x.Receiver(orders, nil)
			sender := x.Sender(orders)
			_, err := sender.Send(x.Context(), &queue.Message{Body: []byte("a")})
			x.Must(err)
			x.Must(x.One(r).Complete(x.Context()))
			k := s.first["k1"]
			if runtime.GC(); k.Value() == nil {
				x.Fatal("the key in use was collected: this test cannot fail")
			}
			s.set(func() { s.secrets["k2"] = 2; delete(s.secrets, "k1") })
			x.Wait(6 * time.Minute)
			collected(x, k)
			_, err = sender.Send(x.Context(), &queue.Message{Body: []byte("a")})
			x.Must(err)
			if d := x.One(r); d.KeyID != "k2" {
				x.Errorf("then sealed under %q", d.KeyID)
			}
			runtime.KeepAlive(sender)
		})
	})
	t.Run("ring", func(t *testing.T) {
		inBubble(t, nil, func(x *fixture) {
			r := x.Receiver(orders, nil)
			sender := x.Sender(orders)
			_, err := sender.Send(x.Context(), &queue.Message{Body: []byte("a")})
			x.Must(err)
			x.Must(x.One(r).Complete(x.Context()))
			k := func() weak.Pointer[keys.Key] {
				k, err := x.Ring.GetKey(x.Context(), "k1")
				x.Must(err)
				return weak.Make(k)
			}()
			x.Must(x.Ring.Remove("k1"))
			x.Wait(time.Minute + time.Second)
			collected(x, k)
			runtime.KeepAlive(sender)
			runtime.KeepAlive(r)
		})
	})
}

// An AESGCM does not live as long as the cache that it listens to.
func TestAESGCMIsCollected(t *testing.T) {
	t.Cleanup(drbg.Prime) // collecting garbage empties the generator's pool
	c, err := keys.NewCached(newSecretStore(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(t.Context()) }()
	a, err := queue.NewAESGCM(c)
	if err != nil {
		t.Fatal(err)
	}
	p := weak.Make(a)
	for range 10 {
		if runtime.GC(); p.Value() == nil {
			return
		}
	}
	t.Error("the cache keeps an AESGCM that is not in use")
}

// Of two calls to a key provider either may fail alone. That is an outage, never
// a key that is not found: messages are given back, none is dead-lettered, and
// none is fetched until the provider answers.
func TestKeyProviderFailsInPart(t *testing.T) {
	for _, call := range []string{"GetKey", "ValidKeyIDs"} {
		for what, failure := range map[string]error{
			"unavailable": fmt.Errorf("store: %w", keys.ErrUnavailable),
			"no sentinel": errors.New("connection refused"),
			"invalid key": fmt.Errorf("store: %w", keys.ErrInvalidKey),
			"time-out":    context.DeadlineExceeded,
		} {
			t.Run(call+", "+what, func(t *testing.T) {
				inStore(t, func(x *fixture, s *secretStore) {
					ring, err := x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Keys: x.Ring})
					x.Must(err)
					for range 3 {
						_, err := ring.Send(x.Context(), &queue.Message{Body: []byte("a")})
						x.Must(err)
					}
					s.fail = func(c string) error {
						if c == call {
							return failure
						}
						return nil
					}
					r := x.Receiver(orders, nil)
					for begin := time.Now(); time.Since(begin) < 10*time.Minute; {
						ds, err := r.Receive(x.Context(), 10)
						x.Nothing(ds, err, queue.ErrKeyProvider)
					}
					if len(x.Rejected) != 3 {
						x.Errorf("%d deliveries were spent in the outage, want 3", len(x.Rejected))
					}
					for _, e := range x.Rejected {
						if !errors.Is(e, queue.ErrKeyProvider) || e.Disposition != driver.Released {
							x.Errorf("rejected with %v, %s; want %v, abandoned", e, e.Disposition, queue.ErrKeyProvider)
						}
					}
					s.set(func() { s.fail = nil })
					got := 0
					for range 60 {
						ds, _ := r.Receive(x.Context(), 10)
						for _, d := range ds {
							x.Must(d.Complete(x.Context()))
							got++
						}
					}
					if got != 3 || len(x.DeadReasons(orders)) > 0 {
						x.Errorf("%d of 3 delivered afterwards, %d dead-lettered", got, len(x.DeadReasons(orders)))
					}
				})
			})
		}
	}
}

// A caller that stops waiting for the key provider gets its context's error. That
// counts against no message and is no outage.
func TestCancelledWaitForKeys(t *testing.T) {
	for _, takes := range []time.Duration{time.Second, 4 * time.Second} { // during the list, during the key
		inStore(t, func(x *fixture, s *secretStore) {
			ring, err := x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Keys: x.Ring})
			x.Must(err)
			_, err = ring.Send(x.Context(), &queue.Message{Body: []byte("a")})
			x.Must(err)
			s.set(func() { s.takes = takes })
			r := x.Receiver(orders, nil)
			ctx, cancel := context.WithTimeout(x.Context(), 1500*time.Millisecond)
			defer cancel()
			if ds, err := r.Receive(ctx, 1); len(ds) > 0 || !errors.Is(err, context.DeadlineExceeded) {
				x.Errorf("Receive = %d, %v; want %v", len(ds), err, context.DeadlineExceeded)
			}
			for _, e := range x.Rejected {
				if errors.Is(e, queue.ErrKeyNotFound) || errors.Is(e, queue.ErrKeyProvider) {
					x.Errorf("rejected with %v", e)
				}
			}
			x.Wait(time.Minute)
			x.Must(x.One(r).Complete(x.Context()))
		})
	}
}

// A key store that answers one call in five delays messages, and spends no
// delivery of them: what was fetched once is used while the store fails.
func TestThrottledKeyStore(t *testing.T) {
	inStore(t, func(x *fixture, s *secretStore) {
		const n = 28
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: 10})
		x.Send(&queue.Message{Body: []byte("a")})
		x.Must(x.One(r).Complete(x.Context()))
		rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // G404: no secret
		var mu sync.Mutex                  // over rnd: a cache asks for several keys at a time
		s.set(func() {
			s.fail = func(string) error {
				mu.Lock()
				defer mu.Unlock()
				if rnd.IntN(5) > 0 {
					return errors.New("429 Too Many Requests")
				}
				return nil
			}
		})
		got := 0
		for range n {
			x.Send(&queue.Message{Body: []byte("a")})
			x.Wait(2 * time.Minute)
			d := x.One(r)
			if d.Count != 1 {
				x.Errorf("delivered after %d deliveries", d.Count)
			}
			x.Must(d.Complete(x.Context()))
			got++
		}
		if got != n || len(x.Rejected) > 0 {
			x.Errorf("%d of %d delivered, %d rejected", got, n, len(x.Rejected))
		}
	})
}

// Forged key IDs in session states cost the key provider as little as those in
// messages, also behind a CryptoProvider of the application's own.
func TestFloodOfKeyIDsInStates(t *testing.T) {
	s := newSecretStore()
	own := func(x *fixture, o *queue.Options) {
		a, err := queue.NewAESGCM(s) // with nothing that bounds it
		x.Must(err)
		o.Keys, o.CryptoProvider = s, a
	}
	inBubble(t, own, func(x *fixture) {
		r := x.Receiver(orders, nil)
		session, err := r.AcceptSession(x.Context(), "s")
		x.Must(err)
		x.Must(session.SetState(x.Context(), []byte("progress")))
		x.Must(session.Close(x.Context()))
		q, err := x.Broker.Connect().Open(x.Context(), orders, nil)
		x.Must(err)
		forge := func(change func([]byte) []byte) []byte {
			raw, err := q.AcceptSession(x.Context(), "s", time.Second)
			x.Must(err)
			old, err := raw.(driver.StatefulSession).State(x.Context())
			x.Must(err)
			x.Must(raw.(driver.StatefulSession).SetState(x.Context(), change(old)))
			x.Must(raw.Close(x.Context()))
			return old
		}
		original := forge(func(b []byte) []byte { return b })
		before := s.count("GetKey") + s.count("ValidKeyIDs")
		for i := range 1000 {
			forge(func([]byte) []byte {
				return bytes.Replace(original, []byte("\x02k1"), fmt.Appendf(nil, "\x08%08d", i), 1)
			})
			session, err := r.AcceptSession(x.Context(), "s")
			x.Must(err)
			if _, err := session.State(x.Context()); !errors.Is(err, queue.ErrKeyNotFound) {
				x.Fatalf("State = %v, want %v", err, queue.ErrKeyNotFound)
			}
			x.Must(session.Close(x.Context()))
		}
		if n := s.count("GetKey") + s.count("ValidKeyIDs") - before; n > 2 {
			x.Errorf("%d calls to the key provider for 1,000 forged states", n)
		}
	})
}

// incomparable is a provider that cannot be the key of a map.
type incomparable struct {
	keys.Provider
	_ []int
}

// One provider has one cache in a Client, whatever opens it, and the Client's
// Close ends it; a cache of the application's own is used as it is and stays open.
func TestOneCacheForEachProvider(t *testing.T) {
	inStore(t, func(x *fixture, s *secretStore) {
		for range 3 {
			x.Send(&queue.Message{Body: []byte("a")})
			x.Must(x.One(x.Receiver(orders, nil)).Complete(x.Context()))
		}
		if n := s.count("ValidKeyIDs"); n > 1 {
			x.Errorf("%d calls of ValidKeyIDs for three senders and receivers, want 1 at most", n)
		}
		for _, call := range []string{"GetKey", "CurrentKeyID"} {
			if n := s.count(call); n != 1 {
				x.Errorf("%d calls of %s for three senders and receivers, want 1", n, call)
			}
		}
		own, err := keys.NewCached(s, nil)
		x.Must(err)
		for _, p := range []keys.Provider{own, incomparable{Provider: s}, incomparable{Provider: s}} {
			r := x.Receiver(orders, &queue.ReceiverOptions{Keys: p, Wait: time.Second})
			x.Send(&queue.Message{Body: []byte("a")})
			x.Must(x.One(r).Complete(x.Context()))
		}
		if n := s.count("GetKey"); n != 4 {
			x.Errorf("%d calls of GetKey, want 4: one for each cache", n)
		}
		x.Must(x.Client.Close(x.Context()))
		if _, err := own.GetKey(x.Context(), "k1"); err != nil {
			x.Errorf("the application's cache after Close: %v", err)
		}
		x.Must(own.Close(x.Context()))
		before := s.count("ValidKeyIDs")
		x.Wait(10 * time.Minute)
		if n := s.count("ValidKeyIDs") - before; n > 0 {
			x.Errorf("%d calls after Close", n)
		}
	})
}

// stolidKeys do not heed the context of a call.
type stolidKeys struct {
	keys.Provider
	takes time.Duration
}

func (s stolidKeys) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	time.Sleep(s.takes) // of the bubble
	return s.Provider.ValidKeyIDs(ctx)
}

// Close of a Client tells that a key provider did not return: its goroutine is left behind.
func TestCloseTellsOfAKeyProvider(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		c := x.behind(&failingBroker{}, func(o *queue.Options) { o.Keys = stolidKeys{x.Ring, time.Hour} })
		x.Send(&queue.Message{Body: []byte("a")})
		r := x.receives(c, nil)
		ctx, cancel := context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		_, _ = r.ReceiveOne(ctx) // waits for the keys
		ctx, cancel = context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		x.failed("Close", c.Close(ctx), context.DeadlineExceeded, "close")
		x.Wait(2 * time.Hour)
	})
}
