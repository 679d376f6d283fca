package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/replay"
)

// stampedStore answers with stamps of the test's.
type stampedStore struct {
	replay.Store
	change func(*replay.Stamp)
}

func (s *stampedStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	claims, err := s.Store.Begin(ctx, group, r)
	if s.change != nil {
		for i := range claims {
			s.change(&claims[i].Stamp)
		}
	}
	return claims, err
}

func (s *stampedStore) Stats(ctx context.Context) (replay.Stats, error) {
	stats, err := s.Store.Stats(ctx)
	if s.change != nil {
		s.change(&stats.Stamp)
	}
	return stats, err
}

// A store that answers with another ID, or with a lower change number, lost its memory:
// receiving stops and the message is not handled, unless the client only warns.
func TestStoreLossStopsReceiving(t *testing.T) {
	for name, change := range map[string]func(*replay.Stamp){
		"another store":     func(s *replay.Stamp) { s.ID[0] ^= 1 },
		"a restored backup": func(s *replay.Stamp) {},
	} {
		for _, policy := range []queue.StoreLoss{queue.StopOnLoss, queue.WarnOnLoss} {
			t.Run(fmt.Sprint(name, ", policy ", policy), func(t *testing.T) {
				made := &stampedStore{change: func(s *replay.Stamp) { s.Change += 100 }}
				set := func(x *fixture, o *queue.Options) {
					made.Store = x.Store
					o.ReplayStore, o.OnStoreLoss = made, policy
				}
				inBubble(t, set, func(x *fixture) {
					r := x.Receiver(orders, nil)
					x.Send(&queue.Message{Body: []byte("a")})
					x.Must(x.One(r).Complete(x.Context()))
					synctest.Wait() // for the look at the streams, which asks the store, too
					made.change = change
					x.Send(&queue.Message{Body: []byte("b")})
					d, err := r.ReceiveOne(x.Context())
					if stops := policy == queue.StopOnLoss; stops != errors.Is(err, queue.ErrReplayStoreLost) || stops != (d == nil) {
						x.Errorf("received %v, %v; want ErrReplayStoreLost, unless the policy is to warn", d, err)
					}
					if n := strings.Count(x.Log.String(), "Replay store lost its memory"); n != 1 {
						x.Errorf("logged %d times, want 1", n)
					}
					if policy == queue.WarnOnLoss {
						x.Must(d.Complete(x.Context()))
						return
					}
					made.change = nil
					x.Wait(time.Hour)
					if _, err := r.ReceiveOne(x.Context()); err == nil {
						x.Error("receiving went on by itself")
					}
				})
			})
		}
	}
}

// replaced is a store in whose place another one can be put.
type replaced struct{ replay.Store }

// An operator accepts a loss, and receivers that run go on: the one that stopped, and one
// that remembers the lost memory and had not asked since.
func TestAcceptedLossResumes(t *testing.T) {
	for name, lose := range map[string]func(x *fixture, s *replaced) (lost replay.Stamp){
		"another store": func(x *fixture, s *replaced) replay.Stamp {
			h, err := s.History(x.Context())
			x.Must(err)
			s.Store, err = replay.NewMemory(nil)
			x.Must(err)
			return h.Stamp
		},
		"a restored backup": func(x *fixture, s *replaced) replay.Stamp {
			h, err := s.History(x.Context())
			x.Must(err)
			s.Store.(*stampedStore).change = nil
			h.Stamp.Change += 100 // as the receivers have seen it
			return h.Stamp
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := &replaced{}
			var options queue.Options
			set := func(x *fixture, o *queue.Options) {
				store.Store = &stampedStore{Store: x.Store, change: func(s *replay.Stamp) { s.Change += 100 }}
				o.ReplayStore = store
				options = *o
			}
			inBubble(t, set, func(x *fixture) {
				idle, err := queue.New(x.Broker, &options)
				x.Must(err)
				defer func() { x.Must(idle.Close(context.Background())) }()
				receivers := []*queue.Receiver{x.Receiver(orders, nil)}
				other, err := idle.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
				x.Must(err)
				receivers = append(receivers, other)
				for _, r := range receivers {
					x.Send(&queue.Message{Body: []byte("a")})
					x.Must(x.One(r).Complete(x.Context()))
				}
				synctest.Wait() // for the looks at the streams
				lost := lose(x, store)
				x.Send(&queue.Message{Body: []byte("b")})
				if _, err := receivers[0].ReceiveOne(x.Context()); !errors.Is(err, queue.ErrReplayStoreLost) || !strings.Contains(err.Error(), fmt.Sprintf("%x", lost.ID)) {
					x.Fatalf("%v, want the loss of %v", err, lost)
				}
				x.Wait(time.Hour)
				wrong := lost
				wrong.ID[0] ^= 1
				_, err = store.AcceptLoss(x.Context(), wrong)
				x.Must(err)
				if _, err := receivers[0].ReceiveOne(x.Context()); err == nil {
					x.Fatal("receiving went on after the loss of another memory was accepted")
				}
				_, err = store.AcceptLoss(x.Context(), lost)
				x.Must(err)
				for _, r := range receivers {
					x.Send(&queue.Message{Body: []byte("c")})
					var d *queue.Delivery
					for range 4 { // the one that did not ask meanwhile finds both out, one after the other
						if d, err = r.ReceiveOne(x.Context()); err == nil {
							break
						}
					}
					x.Must(err)
					x.Must(d.Complete(x.Context()))
				}
				if n := strings.Count(x.Log.String(), "was accepted: receiving goes on"); n != 2 {
					x.Errorf("logged %d times, want 2", n)
				}
			})
		})
	}
}

// asking is a log handler that receives a message when a line comes, as one does that ships
// its lines through the library.
type asking struct {
	slog.Handler
	ask func()
}

func (*asking) Enabled(context.Context, slog.Level) bool { return true }

func (a *asking) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "Replay store lost") {
		a.ask()
	}
	return nil
}

// The line that tells of the loss is logged under no lock.
func TestStoreLossIsLoggedUnderNoLock(t *testing.T) {
	store := &stampedStore{}
	handler := &asking{Handler: slog.DiscardHandler}
	set := func(x *fixture, o *queue.Options) {
		store.Store = x.Store
		o.ReplayStore, o.OnStoreLoss, o.Logger = store, queue.WarnOnLoss, slog.New(handler)
	}
	inBubble(t, set, func(x *fixture) {
		r := x.Receiver(orders, nil)
		x.Send(&queue.Message{Body: []byte("a")})
		x.Must(x.One(r).Complete(x.Context()))
		synctest.Wait()
		asked := false
		handler.ask = func() {
			if !asked {
				asked = true
				x.Must(x.One(r).Complete(x.Context()))
			}
		}
		store.change = func(s *replay.Stamp) { s.ID[0] ^= 1 }
		x.Send(&queue.Message{Body: []byte("b")})
		x.Send(&queue.Message{Body: []byte("c")})
		x.Must(x.One(r).Complete(x.Context()))
		if !asked {
			x.Error("the loss was not logged")
		}
	})
}

// That a store serves one process alone is said once, and in production as a warning.
func TestStoreOfOneProcessIsTold(t *testing.T) {
	for environment, level := range map[string]string{"": "INFO", "production": "WARN"} {
		inBubble(t, func(_ *fixture, o *queue.Options) { o.Environment = environment }, func(x *fixture) {
			for _, name := range []string{orders, "refunds"} {
				x.Nothing(x.Receiver(name, nil).Receive(x.Context(), 1))
			}
			x.Pass(time.Hour)
			want := `"level":"` + level + `","msg":"The replay store serves this process alone`
			if n := strings.Count(x.Log.String(), want); n != 1 || strings.Count(x.Log.String(), "serves this process alone") != 1 {
				x.Errorf("environment %q: %d lines at %s, want 1:\n%s", environment, n, level, x.Log)
			}
		})
	}
}

// A further loss, which a look at the streams meets while receivers stop, changes nothing about
// what an operator has to accept: the loss of the memory from before the first one, because
// nothing was handled since.
func TestFurtherLossHidesNone(t *testing.T) {
	store := &replaced{}
	set := func(x *fixture, o *queue.Options) {
		store.Store = x.Store
		o.ReplayStore = store
	}
	inBubble(t, set, func(x *fixture) {
		r := x.Receiver(orders, nil)
		x.Prove(r)
		synctest.Wait() // for the look at the streams
		lose := func() replay.Stamp {
			h, err := store.History(x.Context())
			x.Must(err)
			store.Store, err = replay.NewMemory(nil)
			x.Must(err)
			return h.Stamp
		}
		stopped := func(when string) {
			x.Helper()
			if d, err := r.ReceiveOne(x.Context()); !errors.Is(err, queue.ErrReplayStoreLost) {
				x.Errorf("%s: received %v, %v; want ErrReplayStoreLost", when, d, err)
			}
			synctest.Wait()
		}
		x.Send(&queue.Message{Body: []byte("a")})
		first := lose()
		stopped("after a loss")
		second := lose()
		x.Wait(time.Hour) // so that a look is due
		stopped("after a further loss")
		if n := x.logged("Replay store lost its memory"); n != 2 {
			x.Errorf("%d losses are logged, want 2", n)
		}
		_, err := store.AcceptLoss(x.Context(), second)
		x.Must(err)
		x.Wait(time.Minute)
		stopped("after the further loss was accepted")
		_, err = store.AcceptLoss(x.Context(), first)
		x.Must(err)
		x.Wait(time.Minute)
		x.Send(&queue.Message{Body: []byte("b")})
		if n := x.drain(r, time.Minute); n != 1 { // the first is too old by now
			x.Errorf("%d messages were delivered after the loss was accepted, want 1", n)
		}
	})
}
