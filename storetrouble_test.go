package queue_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/replay"
)

// troubledStore is a replay store that is full, away, slow or cannot be written while
// trouble is set. Questions that need no write are answered all the same.
type troubledStore struct {
	replay.Store
	trouble storeTroubleKind
	probes  int
}

type storeTroubleKind int

const (
	noTrouble storeTroubleKind = iota
	storeFull
	storeAway
	storeHangs
	storeReadOnly
)

var errReadOnly = errors.New("attempt to write a read-only store")

// write is what a call that writes meets.
func (s *troubledStore) write(ctx context.Context) error {
	switch s.trouble {
	case storeAway:
		return errors.New("connection refused")
	case storeHangs:
		<-ctx.Done()
		return ctx.Err()
	case storeReadOnly:
		return errReadOnly
	}
	return nil
}

func (s *troubledStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	if err := s.write(ctx); err != nil {
		return nil, err
	}
	if s.trouble == storeFull {
		claims := make([]replay.Claim, len(r))
		for i := range claims {
			claims[i].Err = replay.ErrFull
		}
		return claims, nil
	}
	return s.Store.Begin(ctx, group, r)
}

func (s *troubledStore) Probe(ctx context.Context, group string) error {
	s.probes++
	if err := s.write(ctx); err != nil {
		return err
	}
	if s.trouble == storeFull {
		return replay.ErrFull
	}
	return s.Store.Probe(ctx, group)
}

// A replay store that is full, away, slow or read-only for hours spends the batch in hand
// once, and nothing more: nothing is fetched until the store takes a record again. Nothing
// is dead-lettered, on brokers that count each delivery too, and in sessions.
func TestStoreTroubleSpendsOneBatch(t *testing.T) {
	const backlog, batch = 30, 10
	trouble := time.Duration(soak(3, 26)) * time.Hour
	for name, kind := range map[string]storeTroubleKind{"full": storeFull, "away": storeAway, "slow": storeHangs, "read-only": storeReadOnly} {
		for _, sessions := range []bool{false, true} {
			for _, counts := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, sessions %t, counts %t", name, sessions, counts), func(t *testing.T) {
					few := func(x *fixture, _ *queue.Options) { x.Broker = newBroker(3) }
					inBubble(t, few, func(x *fixture) {
						store := &troubledStore{Store: x.Store, trouble: kind}
						h := &hostileBroker{counts: counts}
						c := x.hostile(h, 48*time.Hour, func(o *queue.Options) { o.ReplayStore = store })
						for i := range backlog {
							m := &queue.Message{ID: fmt.Sprint("m", i), Body: []byte("a")}
							if sessions {
								m.SessionID = fmt.Sprint("s", i%3)
							}
							x.Send(m)
						}
						r := x.receiverOf(c, &queue.ReceiverOptions{Wait: 20 * time.Second})
						delivered, highest := 0, 0
						fetch := func() {
							source := r.Receive
							if sessions {
								s, err := r.NextSession(x.Context())
								if errors.Is(err, queue.ErrNoSession) {
									return
								}
								x.Must(err)
								defer func() { _ = s.Close(x.Context()) }()
								source = s.Receive
							}
							ds, err := source(x.Context(), batch)
							for _, d := range x.Some(ds, err, queue.ErrReplayStore, queue.ErrSessionLost) {
								x.Must(d.Complete(x.Context()))
								delivered, highest = delivered+1, max(highest, d.Count)
							}
						}
						for begin := time.Now(); time.Since(begin) < trouble; {
							fetch()
						}
						if delivered > 0 || h.fetched > batch {
							x.Errorf("%d delivered, %d fetched in %s of trouble; want none, and the batch in hand", delivered, h.fetched, trouble)
						}
						if n := store.probes; n < int(trouble/time.Minute) || n > int(trouble/(30*time.Second))+10 {
							x.Errorf("%d probes in %s, want one every 30 s", n, trouble)
						}
						store.trouble = noTrouble
						for begin := time.Now(); time.Since(begin) < 10*time.Minute && delivered < backlog; {
							fetch()
						}
						if n := len(x.DeadReasons(orders)); delivered != backlog || n > 0 || highest > 2 {
							x.Errorf("%d of %d delivered, %d dead letters, the highest count is %d; want all, none, at most 2", delivered, backlog, n, highest)
						}
					})
				})
			}
		}
	}
}

// The store of this process stops receiving when it is full of claims, and goes on once one
// ends: at the cost of one batch, however long that takes.
func TestFullMemoryStopsReceiving(t *testing.T) {
	full := func(x *fixture, o *queue.Options) {
		x.Broker = newBroker(3)
		store, err := replay.NewMemory(&replay.MemoryOptions{Bounds: replay.Bounds{
			Store: replay.Quota{Records: 8, Streams: 100, Intervals: 100}, Group: replay.Quota{Records: 9}, Sender: replay.Quota{Records: 9},
		}})
		x.Must(err)
		x.Store, o.ReplayStore = store, store
		o.Crypto.MaxMessageAge = 24 * time.Hour
	}
	inBubble(t, full, func(x *fixture) {
		for range 8 {
			x.Send(&queue.Message{Body: []byte("held")})
		}
		r := x.Receiver(orders, nil)
		held, err := r.Receive(x.Context(), 8)
		x.Must(err)
		if len(held) != 8 {
			x.Fatalf("%d messages, want 8", len(held))
		}
		x.Send(&queue.Message{ID: "next", Body: []byte("a")})
		for begin := time.Now(); time.Since(begin) < 6*time.Hour; {
			for _, d := range held {
				x.Must(d.Renew(x.Context()))
			}
			ds, err := r.Receive(x.Context(), 8)
			x.Nothing(ds, err, queue.ErrReplayStore)
		}
		for _, d := range held {
			x.Must(d.Complete(x.Context()))
		}
		x.Wait(time.Minute)
		d := x.One(r)
		x.Must(d.Complete(x.Context()))
		if n := len(x.DeadReasons(orders)); d.Count > 2 || n > 0 || len(x.Rejected) > 1 {
			x.Errorf("count %d, %d dead letters, %d rejections; want at most 2, 0 and 1", d.Count, n, len(x.Rejected))
		}
	})
}

// A lock of the broker's choice is no reason to stop, to spin, or to deliver twice.
func TestLockOfTheBrokersChoice(t *testing.T) {
	for name, until := range map[string]time.Time{
		"year 9999": time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), "year 1": time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC),
		"first": time.Unix(-1<<62, 0), "last": time.Unix(1<<62, 0),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				h := &hostileBroker{deliver: func(d []*driver.Delivery) {
					for _, d := range d {
						d.LockedUntil = until
					}
				}}
				r := x.receiverOf(x.hostile(h, 5*time.Minute, nil), nil)
				x.Send(&queue.Message{ID: "m", Body: []byte("x")})
				stolen := x.Steal()
				d, err := r.ReceiveOne(x.Context())
				if errors.Is(err, queue.ErrReplayStore) {
					x.Fatalf("receiving stopped: %v", err)
				}
				if err == nil {
					x.Must(d.Complete(x.Context()))
				}
				h.deliver = nil
				x.Rewrite(orders, func([]driver.Message) []driver.Message { return []driver.Message{stolen} })
				if again, err2 := r.ReceiveOne(x.Context()); err == nil && err2 == nil {
					x.Errorf("handled again: %q", again.Body)
				}
				x.Rewrite(orders, func([]driver.Message) []driver.Message { return nil })
				x.Send(&queue.Message{ID: "n", Body: []byte("x")})
				x.Must(x.One(r).Complete(x.Context()))
			})
		})
	}
}

// The messages of a sender at its quota are given back for longer and longer on a broker
// that counts: none is dead within hours, and all are handled once there is room.
func TestQuotaSpendsFewDeliveries(t *testing.T) {
	few := func(x *fixture, _ *queue.Options) {
		x.Broker = newBroker(10)
		store, err := replay.NewMemory(&replay.MemoryOptions{Bounds: replay.Bounds{
			Store: replay.Quota{Records: 100, Streams: 100, Intervals: 100}, Sender: replay.Quota{Records: 4},
		}})
		x.Must(err)
		x.Store = store
	}
	inBubble(t, few, func(x *fixture) {
		r := x.receiverOf(x.hostile(&hostileBroker{counts: true}, 24*time.Hour, nil), nil)
		for range 8 {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		held, err := r.Receive(x.Context(), 8)
		x.Must(err)
		if len(held) != 4 {
			x.Fatalf("%d messages, want the 4 that the sender may have claimed", len(held))
		}
		for begin := time.Now(); time.Since(begin) < 3*time.Hour; {
			for _, d := range held {
				x.Must(d.Renew(x.Context()))
			}
			x.Nothing(r.Receive(x.Context(), 8))
		}
		if n := len(x.DeadReasons(orders)); n > 0 {
			x.Errorf("%d dead letters in 3 hours, want none", n)
		}
		for _, d := range held {
			x.Must(d.Complete(x.Context()))
		}
		if n := x.drain(r, 2*time.Hour); n != 4 {
			x.Errorf("%d were delivered once there was room, want 4", n)
		}
	})
}

// A call that waited for a store to come back waits for messages for what is left of Wait.
func TestOutageCountsAsWaiting(t *testing.T) {
	store := &troubledStore{trouble: storeAway}
	inBubble(t, func(x *fixture, o *queue.Options) { store.Store = x.Store; o.ReplayStore = store }, func(x *fixture) {
		const wait = 2 * time.Minute
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: wait})
		x.Send(&queue.Message{Body: []byte("a")})
		if ds, err := r.Receive(x.Context(), 1); len(ds) > 0 {
			x.Fatalf("Receive = %d, %v beside a store that is away", len(ds), err)
		}
		x.Rewrite(orders, func([]driver.Message) []driver.Message { return nil })
		store.trouble = noTrouble
		before, begin := store.probes, time.Now()
		x.Nothing(r.Receive(x.Context(), 1))
		if took := time.Since(begin); took != wait || store.probes == before {
			x.Errorf("Receive took %s after %d probes, want %s after some", took, store.probes-before, wait)
		}
	})
}
