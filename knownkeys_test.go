package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// noPeek is a broker that cannot peek.
func noPeek(c *driver.Capabilities) { c.Peek = driver.None }

// wrongRing has another secret under the ID of the fixture's key.
func (x *fixture) wrongRing() *keys.Ring {
	x.Helper()
	wrong, err := keys.New("k1", bytes.Repeat([]byte{0xee}, keys.Size), nil)
	x.Must(err)
	ring, err := keys.NewRing(wrong)
	x.Must(err)
	return ring
}

// correct puts the right secret into a ring that had a wrong one.
func (x *fixture) correct(ring *keys.Ring) {
	x.Helper()
	x.Must(ring.Remove("k1"))
	x.Must(ring.Add(newKey(x.T, "k1", 1)))
	x.Must(ring.SetCurrent("k1"))
}

// drain receives until nothing came for some time, and returns how many messages were
// delivered.
func (x *fixture) drain(r *queue.Receiver, idle time.Duration) (n int) {
	x.Helper()
	for last := time.Now(); time.Since(last) < idle; {
		ds, err := r.Receive(x.Context(), 10)
		for _, d := range x.Some(ds, err, queue.ErrReceivingPaused, queue.ErrKeyProvider) {
			x.Must(d.Complete(x.Context()))
			n, last = n+1, time.Now()
		}
	}
	return n
}

// A wrong secret under the right ID spends nothing of a backlog: nothing is dead-lettered
// in two hours, and once the secret is corrected all is delivered, without a restart. A
// broker that can peek is not asked for a message meanwhile, another for one in five
// minutes at most.
func TestWrongSecretSpendsNothing(t *testing.T) {
	const backlog = 240
	for name, c := range map[string]struct {
		h      hostileBroker
		probes int // messages that may be fetched in the pause
	}{
		"peeks":               {hostileBroker{}, 0},
		"peeks, counts":       {hostileBroker{counts: true}, 0},
		"cannot peek":         {hostileBroker{caps: noPeek}, 32},
		"cannot peek, counts": {hostileBroker{caps: noPeek, counts: true}, 32},
	} {
		t.Run(name, func(t *testing.T) {
			ten := func(x *fixture, o *queue.Options) {
				x.Broker = newBroker(10)
				o.Crypto.MaxMessageAge = 24 * time.Hour
			}
			inBubble(t, ten, func(x *fixture) {
				for range backlog {
					x.Send(&queue.Message{Body: []byte("a")})
				}
				ring, h, events := x.wrongRing(), &c.h, &diary{}
				r := x.receiverOf(x.hostile(h, 24*time.Hour, func(o *queue.Options) { o.Keys, o.Observer = ring, events }), nil)
				x.Nothing(r.Receive(x.Context(), 100))
				first := h.fetched
				for begin := time.Now(); time.Since(begin) < 2*time.Hour; {
					ds, err := r.Receive(x.Context(), 100)
					x.Nothing(ds, err, queue.ErrReceivingPaused)
				}
				if n := len(x.DeadReasons(orders)); n > 0 {
					x.Errorf("%d dead letters, want none", n)
				}
				if n := h.fetched - first; n > c.probes {
					x.Errorf("%d messages were fetched in the pause, want at most %d", n, c.probes)
				}
				if n := strings.Count(x.Log.String(), "Receiving PAUSED"); n != 1 {
					x.Errorf("%d alerts in the log, want 1", n)
				}
				if n := strings.Count(x.Log.String(), "\n"); n > backlog+10 { // of the sends
					x.Errorf("%d log lines: probes are logged", n)
				}
				x.correct(ring)
				if n := x.drain(r, 40*time.Minute); n != backlog {
					x.Errorf("%d of %d were delivered after the correction", n, backlog)
				}
				if !strings.Contains(x.Log.String(), "Receiving resumed") {
					x.Error("no line about the resumption")
				}
				x.told("the pause", slices.Concat(events.of("paused"), events.of("resumed")), "paused authentication_failed", "resumed authentication_failed")
			})
		})
	}
}

// Forgeries in front of an authentic message delay it by less than a second: once a
// message has opened under the key, also at another receiver of the client, and after a
// restart if the replay store was kept or the broker can peek. They are dead-lettered, and
// raise the alarm.
func TestForgeriesDelayLittle(t *testing.T) {
	const n = 200
	for name, c := range map[string]struct {
		h              hostileBroker
		prove, restart bool
	}{
		"key known":                              {hostileBroker{}, true, false},
		"key known, cannot peek":                 {hostileBroker{caps: noPeek, counts: true}, true, false},
		"key known to the store":                 {hostileBroker{}, true, true},
		"key known to the store, cannot peek":    {hostileBroker{caps: noPeek, counts: true}, true, true},
		"key known to no store":                  {hostileBroker{}, false, false},
		"key known to no store, counting broker": {hostileBroker{counts: true}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, age := range []time.Duration{5 * time.Minute, 14 * 24 * time.Hour} {
				inBubble(t, func(_ *fixture, o *queue.Options) { o.Crypto.MaxMessageAge = age }, func(x *fixture) {
					client := x.hostile(&c.h, age, nil)
					if c.prove {
						x.Prove(x.receiverOf(client, nil))
					}
					if c.restart {
						client = x.hostile(&c.h, age, nil)
					}
					x.Send(&queue.Message{ID: "old", Body: []byte("x")})
					forged := x.Steal()
					forged.Body[len(forged.Body)-1] ^= 1
					x.Rewrite(orders, func([]driver.Message) []driver.Message { return copies(forged, n) })
					x.Send(&queue.Message{ID: "legit", Body: []byte("x")})
					r := x.receiverOf(client, nil)
					begin := time.Now()
					for d := (*queue.Delivery)(nil); d == nil && time.Since(begin) < time.Hour; {
						d, _ = r.ReceiveOne(x.Context())
					}
					if took := time.Since(begin); took >= time.Second {
						x.Errorf("%d forgeries delayed a message of %s at most by %s, want less than a second", n, age, took)
					}
					x.drain(r, time.Minute)
					if got := len(x.DeadReasons(orders)); got != n {
						x.Errorf("%d dead letters, want the %d forgeries", got, n)
					}
					if !strings.Contains(x.Log.String(), "FLOOD") {
						x.Error("no alarm in the log")
					}
				})
			}
		})
	}
}

// A replay between every 19 forgeries hides no flood of them: the alarm counts what could
// not be read, whatever comes between.
func TestReplaysHideNoFlood(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "old", Body: []byte("x")})
		old := x.Steal()
		x.Must(x.One(x.Receiver(orders, nil)).Complete(x.Context()))
		x.Wait(24 * time.Hour) // long expired
		x.Rewrite(orders, func([]driver.Message) []driver.Message {
			all := copies(old, 400)
			for i := range all {
				if i%20 != 19 {
					all[i].Body[len(all[i].Body)-1] ^= 1
				}
			}
			return all
		})
		r := x.Receiver(orders, nil)
		for range 400 {
			_, _ = r.ReceiveOne(x.Context())
		}
		if n := len(x.DeadReasons(orders)); n < 380 || !strings.Contains(x.Log.String(), "FLOOD") {
			x.Errorf("%d dead letters and no alarm", n)
		}
	})
}

// A key ID that names another secret than the one that opened messages of the queue stops
// the receiver before it fetches, and the error says so. Once the secret is corrected it
// goes on.
func TestChangedSecretStopsBeforeFetch(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		h := &hostileBroker{}
		client := x.hostile(h, 5*time.Minute, nil)
		x.Prove(x.receiverOf(client, nil))
		ring := x.wrongRing()
		r := x.receiverOf(client, &queue.ReceiverOptions{Keys: ring, Wait: time.Second})
		x.Send(&queue.Message{Body: []byte("a")})
		before := h.fetched
		for begin := time.Now(); time.Since(begin) < 4*time.Minute; {
			_, err := r.Receive(x.Context(), 10)
			if !errors.Is(err, queue.ErrKeyChanged) || !strings.Contains(err.Error(), `"k1" has another secret`) {
				x.Fatalf("Receive = %v, want ErrKeyChanged", err)
			}
		}
		if n := h.fetched - before; n > 0 || len(x.Rejected) > 0 {
			x.Errorf("%d messages were fetched, %d rejected; want none", n, len(x.Rejected))
		}
		x.correct(ring)
		if n := x.drain(r, time.Minute); n != 1 {
			x.Errorf("%d messages were delivered after the correction, want 1", n)
		}
	})
}

// A process that starts with another secret under the ID than the one that opened messages
// before fetches nothing, because the replay store knows. An operator can have it forgotten.
func TestChangedSecretStopsAfterRestart(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		h := &hostileBroker{caps: noPeek}
		x.Prove(x.receiverOf(x.hostile(h, 5*time.Minute, nil), nil))
		ring := x.wrongRing()
		started := func() *queue.Receiver {
			return x.receiverOf(x.hostile(h, 5*time.Minute, func(o *queue.Options) { o.Keys = ring }), nil)
		}
		r := started()
		x.Send(&queue.Message{Body: []byte("a")})
		before := h.fetched
		for range 10 {
			if _, err := r.Receive(x.Context(), 10); !errors.Is(err, queue.ErrKeyChanged) {
				x.Fatalf("Receive = %v, want ErrKeyChanged", err)
			}
		}
		if n := h.fetched - before; n > 0 {
			x.Errorf("%d messages were fetched, want none", n)
		}
		if found, err := x.Store.ForgetKey(x.Context(), orders, replay.KnownKey{Queue: orders, ID: "k1"}); err != nil || !found {
			x.Fatalf("ForgetKey: %v, %v", found, err)
		}
		if _, err := started().Receive(x.Context(), 10); errors.Is(err, queue.ErrKeyChanged) || h.fetched == before {
			x.Errorf("Receive = %v with %d fetched: the key was forgotten", err, h.fetched-before)
		}
	})
}

// keylessStore does not answer about keys while it is told so.
type keylessStore struct {
	replay.Store
	away  bool
	calls int
}

func (s *keylessStore) KnownKeys(ctx context.Context, group string) ([]replay.KnownKey, error) {
	if s.calls++; s.away {
		return nil, errors.New("no answer")
	}
	return s.Store.KnownKeys(ctx, group)
}

func (s *keylessStore) NoteKey(ctx context.Context, group string, k replay.KnownKey) (replay.KnownKey, error) {
	if s.calls++; s.away {
		return replay.KnownKey{}, errors.New("no answer")
	}
	return s.Store.NoteKey(ctx, group, k)
}

// A store that does not answer about keys keeps no message back. It is asked again, not with
// each message, and once it knows what there is to know not at all.
func TestStoredKeysWithoutAnswer(t *testing.T) {
	store := &keylessStore{away: true}
	set := func(x *fixture, o *queue.Options) {
		store.Store = x.Store
		o.ReplayStore = store
	}
	inBubble(t, set, func(x *fixture) {
		r := x.Receiver(orders, nil)
		for range 10 {
			x.Prove(r)
		}
		if store.calls != 1 {
			x.Errorf("asked %d times within a second, want once", store.calls)
		}
		store.away = false
		x.Wait(time.Minute)
		for range 10 {
			x.Prove(r)
		}
		if store.calls != 3 {
			x.Errorf("asked %d times, want 3: it was away, it was read, and the key was entered", store.calls)
		}
		x.Prove(x.receiverOf(x.hostile(&hostileBroker{}, 5*time.Minute, func(o *queue.Options) { o.ReplayStore = store }), nil))
		if store.calls != 4 {
			x.Errorf("a process that starts makes %d calls, want 1: the key is entered", store.calls-3)
		}
		if all, err := x.Store.KnownKeys(x.Context(), orders); err != nil || len(all) != 1 || all[0].ID != "k1" || all[0].Queue != orders {
			x.Errorf("known keys: %v, %v, want k1 of %s", all, err, orders)
		}
	})
}

// TestWrongSecretWithoutTimesOfArrival: nothing is taken for outdated of which the broker does not say
// when it came.
func TestWrongSecretWithoutTimesOfArrival(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		wrong := newRing(x.T, "k1")
		x.Must(wrong.Add(newKey(x.T, "k2", 9)))
		h := &hostileBroker{deliver: func(d []*driver.Delivery) {
			for _, d := range d {
				d.EnqueuedAt = time.Time{}
			}
		}}
		r := x.receiverOf(x.hostile(h, 24*time.Hour, func(o *queue.Options) { o.Keys = wrong }), &queue.ReceiverOptions{Wait: time.Second})
		x.Prove(r)
		x.Must(x.Ring.SetCurrent("k2"))
		for range 3 {
			x.Send(&queue.Message{Body: []byte("under k2")})
		}
		for begin := time.Now(); time.Since(begin) < time.Hour; {
			ds, err := r.Receive(x.Context(), 1)
			x.Nothing(ds, err, queue.ErrReceivingPaused)
		}
		if all := x.DeadReasons(orders); len(all) > 0 || len(x.Stored(orders)) != 3 {
			x.Errorf("dead letters %v, %d stored; want none, and all", all, len(x.Stored(orders)))
		}
	})
}

// While another key opens messages, a key with a wrong secret stops nothing: its messages
// are given back, and delivered once it is corrected. After MaxMessageAge they could not be
// delivered any more: then they are dead letters, so that forgeries do not come round for ever.
func TestWrongSecretBesideAKeyThatWorks(t *testing.T) {
	for _, corrected := range []bool{true, false} {
		t.Run(fmt.Sprintf("corrected %t", corrected), func(t *testing.T) {
			inBubble(t, patient, func(x *fixture) {
				x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
				wrong := newRing(x.T, "k1")
				x.Must(wrong.Add(newKey(x.T, "k2", 9)))
				r := x.Receiver(orders, &queue.ReceiverOptions{Keys: wrong, Wait: time.Second})
				x.Prove(r)
				x.Must(x.Ring.SetCurrent("k2"))
				for range 30 {
					x.Send(&queue.Message{Body: []byte("under k2")})
				}
				x.Must(x.Ring.SetCurrent("k1"))
				for range 60 {
					x.Send(&queue.Message{Body: []byte("under k1")})
					begin := time.Now()
					d := (*queue.Delivery)(nil)
					for d == nil && time.Since(begin) < time.Hour {
						if ds := x.Some(r.Receive(x.Context(), 1)); len(ds) > 0 {
							d = ds[0]
						}
					}
					if took := time.Since(begin); took >= time.Second {
						x.Fatalf("a message under k1 came after %s", took)
					}
					x.Must(d.Complete(x.Context()))
					x.Wait(time.Minute)
				}
				if n := len(x.DeadReasons(orders)); n > 0 {
					x.Errorf("%d dead letters within MaxMessageAge, want none", n)
				}
				if n := strings.Count(x.Log.String(), "Messages under one key do not open"); n != 1 {
					x.Errorf("%d alerts about k2, want 1", n)
				}
				if corrected {
					x.Must(wrong.Remove("k2"))
					x.Must(wrong.Add(newKey(x.T, "k2", 2)))
					if n := x.drain(r, 10*time.Minute); n != 30 {
						x.Errorf("%d messages under k2 were delivered, want 30", n)
					}
					return
				}
				x.drain(r, 2*time.Hour)
				if got := x.DeadReasons(orders); len(got) != 30 || slices.ContainsFunc(got, func(s string) bool { return s != "authentication_failed" }) {
					x.Errorf("dead letters %v, want 30 of authentication_failed", got)
				}
			})
		})
	}
}

// A message that fails under such a key is a dead letter when it could not be delivered any
// more, not before: a corrected secret still opens it in the time that clocks may differ by.
func TestWrongSecretUntilTheMessageIsTooOld(t *testing.T) {
	for age, dead := range map[time.Duration]int{5*time.Minute + 29*time.Second: 0, 5*time.Minute + 31*time.Second: 1} {
		inBubble(t, nil, func(x *fixture) {
			x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
			wrong := newRing(x.T, "k1")
			x.Must(wrong.Add(newKey(x.T, "k2", 9)))
			r := x.receiverOf(x.hostile(&hostileBroker{}, 5*time.Minute, func(o *queue.Options) { o.Keys = wrong }), nil)
			x.Prove(r)
			x.Must(x.Ring.SetCurrent("k2"))
			x.Send(&queue.Message{Body: []byte("under k2")})
			x.Wait(age)
			x.Nothing(r.Receive(x.Context(), 1))
			if n := len(x.DeadReasons(orders)); n != dead {
				x.Errorf("%d dead letters after %s, want %d", n, age, dead)
			}
		})
	}
}

// A message that does not open under a key which opened none is a dead letter once it is too
// old, and never if no message is.
func TestWrongSecretWithoutFreshness(t *testing.T) {
	for _, skip := range []bool{false, true} {
		inBubble(t, func(_ *fixture, o *queue.Options) { without(o) }, func(x *fixture) {
			x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
			wrong := newRing(x.T, "k1")
			x.Must(wrong.Add(newKey(x.T, "k2", 9)))
			r := x.receiverOf(x.hostile(&hostileBroker{}, 5*time.Minute, func(o *queue.Options) {
				without(o)
				o.Keys, o.Crypto.InsecureSkipFreshness = wrong, skip
			}), nil)
			x.Prove(r)
			x.Must(x.Ring.SetCurrent("k2"))
			x.Send(&queue.Message{Body: []byte("under k2")})
			x.drain(r, time.Hour)
			want := map[bool]int{false: 1}[skip]
			if n := len(x.DeadReasons(orders)); n != want {
				x.Errorf("without freshness %t: %d dead letters after an hour, want %d", skip, n, want)
			}
		})
	}
}

// A forgery in front of the first message that opens is known as one: a batch is searched
// for what opens before what failed is judged.
func TestForgeryInFrontOfTheFirstMessage(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "good", Body: []byte("a")})
		x.Rewrite(orders, func(all []driver.Message) []driver.Message {
			forged := copyMessage(all[0])
			forged.ID = "forged"
			return append([]driver.Message{forged}, all...)
		})
		ds, err := x.Receiver(orders, nil).Receive(x.Context(), 10)
		x.Must(err)
		if len(ds) != 1 || len(x.Rejected) != 1 || x.Rejected[0].Disposition != driver.DeadLettered {
			x.Errorf("%d delivered, rejected %v; want the good one, and the other dead-lettered", len(ds), x.Rejected)
		}
	})
}

// A secret that was corrected while the receiver is stopped for it is used for what comes
// next, and an empty queue in a pause is no reason to wait for longer and longer.
func TestPauseOverAnEmptyQueue(t *testing.T) {
	for name, h := range map[string]*hostileBroker{"peeks": {}, "cannot peek": {caps: noPeek}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				client := x.hostile(h, 5*time.Minute, nil)
				r := x.receiverOf(client, nil)
				x.Send(&queue.Message{ID: "m", Body: []byte("a")})
				forged := x.Steal()
				forged.Body[len(forged.Body)-1] ^= 1
				x.Rewrite(orders, func([]driver.Message) []driver.Message { return copies(forged, 25) })
				x.Nothing(r.Receive(x.Context(), 25))
				x.Rewrite(orders, func([]driver.Message) []driver.Message { return nil }) // they were purged
				for begin := time.Now(); time.Since(begin) < time.Hour; {
					ds, err := r.Receive(x.Context(), 10)
					x.Nothing(ds, err, queue.ErrReceivingPaused)
				}
				x.Send(&queue.Message{ID: "legit", Body: []byte("a")})
				begin := time.Now()
				if n := x.drain(r, 10*time.Minute); n != 1 {
					x.Errorf("%d delivered, want 1", n)
				}
				if took := time.Since(begin) - 10*time.Minute; took > 10*time.Second {
					x.Errorf("the first message after the pause came after %s", took)
				}
			})
		})
	}
}

// Queues that one key serves are named once, because each of its holders can send to all of
// them. Keys that name their queues, and keys of their own, are no reason to.
func TestKeyOfSeveralQueues(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fixture, *queue.Options)
		want   int
	}{
		"one ring": {func(*fixture, *queue.Options) {}, 1},
		"the key names its queues": {func(x *fixture, o *queue.Options) {
			key, err := keys.New("k1", bytes.Repeat([]byte{1}, keys.Size), &keys.Options{Queues: []string{orders, "refunds", "others"}})
			x.Must(err)
			x.Ring, err = keys.NewRing(key)
			x.Must(err)
			x.Must(x.Ring.SetCurrent("k1"))
			o.Keys = x.Ring
		}, 0},
		"keys of their own": {func(x *fixture, o *queue.Options) {
			of := map[string]keys.Provider{orders: newRing(x.T, "k1"), "refunds": newRing(x.T, "k2"), "others": newRing(x.T, "k3")}
			_ = x.Ring.Remove("k1")
			x.Must(of["refunds"].(*keys.Ring).SetCurrent("k2"))
			o.Keys, o.KeysFor = nil, func(name string) keys.Provider { return of[name] }
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, c.change, func(x *fixture) {
				for range 2 {
					for _, name := range []string{orders, "refunds", "others"} {
						_, err := x.Sender(name).Send(x.Context(), &queue.Message{Body: []byte("a")})
						x.Must(err)
						x.Must(x.One(x.Receiver(name, nil)).Complete(x.Context()))
					}
				}
				if n := strings.Count(x.Log.String(), `"level":"WARN","msg":"One key opens messages of several queues`); n != c.want {
					x.Errorf("%d warnings, want %d:\n%s", n, c.want, x.Log)
				}
			})
		})
	}
}

// silentKeys answers nothing about keys until its caller has left.
type silentKeys struct{ replay.Store }

func (s silentKeys) KnownKeys(ctx context.Context, _ string) ([]replay.KnownKey, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A store that is asked for keys takes the time that a Receive may wait, and none on top.
func TestStoredKeysCountAsWaiting(t *testing.T) {
	set := func(x *fixture, o *queue.Options) { o.ReplayStore = silentKeys{x.Store} }
	inBubble(t, set, func(x *fixture) {
		const wait = 5 * time.Second
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: wait})
		begin := time.Now()
		x.Nothing(r.Receive(x.Context(), 1))
		if took := time.Since(begin); took != wait {
			x.Errorf("Receive took %s of an empty queue, want %s", took, wait)
		}
	})
}

// During a migration a receiver with a wrong secret handles plaintext. What it says of one that
// it gives up is sealed under that secret, and yet the secret is corrected without a restart.
func TestWrongSecretSealsDetailsAndIsCorrected(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		ring := x.wrongRing()
		r := x.Receiver(orders, &queue.ReceiverOptions{
			Keys: ring, Wait: time.Second,
			Crypto: &queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Allow, TrackReplays: true, Loosen: true},
		})
		x.Inject(orders, driver.Message{ID: "plain", Body: []byte("a")})
		x.Must(x.One(r).DeadLetter(x.Context(), queue.Reason{Code: "gave_up", Detail: "no such order"}))
		x.Send(&queue.Message{ID: "sealed", Body: []byte("a")})
		x.None(r, queue.ErrAuthenticationFailed)
		x.correct(ring)
		if n := x.drain(r, time.Hour); n != 1 {
			x.Errorf("%d messages were delivered, want 1", n)
		}
	})
}
