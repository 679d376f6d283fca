package queue_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/replay"
)

// knownTo fails the test unless the store knows k1 of the orders, and nothing else.
func (x *fixture) knownTo(store replay.Store) {
	x.Helper()
	all, err := store.KnownKeys(x.Context(), orders)
	x.Must(err)
	if len(all) != 1 || all[0].ID != "k1" || all[0].Queue != orders {
		x.Errorf("known keys: %v, want k1 of %s", all, orders)
	}
}

// stopsForKey fails the test unless the receiver stops because its secret is another one.
func (x *fixture) stopsForKey(r *queue.Receiver) {
	x.Helper()
	if ds, err := r.Receive(x.Context(), 10); len(ds) > 0 || !errors.Is(err, queue.ErrKeyChanged) {
		x.Errorf("Receive = %d, %v, want ErrKeyChanged", len(ds), err)
	}
}

// A store that lost its memory gets the known keys again from the processes that run, once
// they receive again: a process that starts later with another secret fetches nothing. While
// receivers stop for the loss, nothing is entered.
func TestKnownKeysAfterLoss(t *testing.T) {
	for name, policy := range map[string]queue.StoreLoss{"accepted": queue.StopOnLoss, "warned of": queue.WarnOnLoss} {
		t.Run(name, func(t *testing.T) {
			store := &replaced{}
			set := func(x *fixture, o *queue.Options) {
				store.Store = x.Store
				o.ReplayStore, o.OnStoreLoss = store, policy
			}
			inBubble(t, set, func(x *fixture) {
				r := x.Receiver(orders, nil)
				x.Prove(r)
				synctest.Wait() // for the look at the streams, which asks the store, too
				x.knownTo(store)
				h, err := store.History(x.Context())
				x.Must(err)
				fresh, err := replay.NewMemory(nil)
				x.Must(err)
				store.Store = fresh

				if policy == queue.StopOnLoss {
					x.Send(&queue.Message{Body: []byte("a")})
					if _, err := r.ReceiveOne(x.Context()); !errors.Is(err, queue.ErrReplayStoreLost) {
						x.Fatalf("Receive = %v, want the loss", err)
					}
					x.Wait(time.Minute)
					_, _ = r.ReceiveOne(x.Context())
					if all, err := fresh.KnownKeys(x.Context(), orders); err != nil || len(all) > 0 {
						x.Errorf("known keys before the loss was accepted: %v, %v", all, err)
					}
					_, err = store.AcceptLoss(x.Context(), h.Stamp)
					x.Must(err)
					x.Wait(time.Minute)
					x.Must(x.One(r).Complete(x.Context()))
				}
				x.Prove(r)
				x.knownTo(fresh)

				hostile := &hostileBroker{}
				started := x.receiverOf(x.hostile(hostile, 5*time.Minute, func(o *queue.Options) { o.Keys, o.ReplayStore = x.wrongRing(), fresh }), nil)
				x.Send(&queue.Message{Body: []byte("a")})
				x.stopsForKey(started)
				if hostile.fetched > 0 {
					x.Errorf("%d messages were fetched", hostile.fetched)
				}
			})
		})
	}
}

// A receiver that stops because it has another secret enters the known value nowhere: an
// operator may have had it forgotten.
func TestStoppedReceiverEntersNoKey(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		store := &replaced{x.Store}
		h := &hostileBroker{}
		x.Prove(x.receiverOf(x.hostile(h, 5*time.Minute, nil), nil))
		stopped := x.receiverOf(x.hostile(h, 5*time.Minute, func(o *queue.Options) {
			o.Keys, o.ReplayStore, o.OnStoreLoss = x.wrongRing(), store, queue.WarnOnLoss
		}), nil)
		x.stopsForKey(stopped)
		synctest.Wait() // for the look at the streams, which asks the store, too
		fresh, err := replay.NewMemory(nil)
		x.Must(err)
		store.Store = fresh
		x.Wait(time.Hour) // looks at the streams ask the new store
		for range 3 {
			x.stopsForKey(stopped)
			x.Wait(time.Hour)
		}
		if all, err := fresh.KnownKeys(x.Context(), orders); err != nil || len(all) > 0 {
			x.Errorf("known keys: %v, %v, want none", all, err)
		}
	})
}

// Of two processes that start at the same time with different secrets under one ID, the one
// whose message opened first goes on. The other stops as soon as a message opened there.
func TestTwoSecretsAtTheSameTime(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		h := &hostileBroker{}
		client := x.hostile(h, 5*time.Minute, func(o *queue.Options) { o.Keys = x.wrongRing() })
		first, second := x.receiverOf(x.hostile(h, 5*time.Minute, nil), nil), x.receiverOf(client, nil)
		for _, r := range []*queue.Receiver{first, second} { // both find no key in the store
			x.Nothing(r.Receive(x.Context(), 1))
		}
		x.Prove(first)
		x.knownTo(x.Store)
		sender, err := client.Sender(x.Context(), orders, nil)
		x.Must(err)
		_, err = sender.Send(x.Context(), &queue.Message{Body: []byte("under the other secret")})
		x.Must(err)
		x.Must(x.One(second).Complete(x.Context()))
		x.Send(&queue.Message{Body: []byte("a")})
		x.stopsForKey(second)
		x.Must(x.One(first).Complete(x.Context()))
		x.knownTo(x.Store)
	})
}

// A process that could not read the store at its start, and opened messages under another
// secret than the store knows, stops once the store answers.
func TestSecretThatTheStoreKnowsLate(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		h := &hostileBroker{}
		x.Prove(x.receiverOf(x.hostile(h, 5*time.Minute, nil), nil))
		store := &keylessStore{Store: x.Store, away: true}
		client := x.hostile(h, 5*time.Minute, func(o *queue.Options) { o.Keys, o.ReplayStore = x.wrongRing(), store })
		r := x.receiverOf(client, nil)
		sender, err := client.Sender(x.Context(), orders, nil)
		x.Must(err)
		_, err = sender.Send(x.Context(), &queue.Message{Body: []byte("under the other secret")})
		x.Must(err)
		x.Must(x.One(r).Complete(x.Context()))
		store.away = false
		x.Wait(time.Minute)
		x.stopsForKey(r)
	})
}

// entryStore takes no entry of a key while it has an error.
type entryStore struct {
	replay.Store
	err   error
	asked int
}

func (s *entryStore) NoteKey(ctx context.Context, group string, k replay.KnownKey) (replay.KnownKey, error) {
	if s.asked++; s.err != nil {
		return replay.KnownKey{}, s.err
	}
	return s.Store.NoteKey(ctx, group, k)
}

// A key that the store did not take is entered once it answers, although nothing about the key
// is new by then: else a process that starts with another secret would not be stopped.
func TestKeyIsEnteredOnceTheStoreAnswers(t *testing.T) {
	store := &entryStore{err: errors.New("no answer")}
	set := func(x *fixture, o *queue.Options) {
		store.Store = x.Store
		o.ReplayStore = store
	}
	inBubble(t, set, func(x *fixture) {
		r := x.Receiver(orders, nil)
		for range 3 {
			x.Prove(r)
		}
		if store.asked != 1 {
			x.Errorf("asked %d times within a second, want once", store.asked)
		}
		store.err = nil
		x.Wait(time.Minute)
		x.Prove(r)
		x.knownTo(x.Store)
	})
}
