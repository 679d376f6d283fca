package queue_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// accounts collects what an Observer is told of late and missing messages.
type accounts struct {
	mu      sync.Mutex // guards what follows
	late    []reported
	missing []reported
	codes   []string // of CryptoErrors
	last    observe.Accounted
	looks   int
}

// reported is a run of sequences and when it was reported.
type reported struct {
	sender string
	stream [16]byte
	replay.Range
	at time.Time
}

func (a *accounts) observer() observe.Observer {
	return observe.Func(func(_ context.Context, _ observe.Source, event any) {
		a.mu.Lock()
		defer a.mu.Unlock()
		const nothing = "a report of nothing"
		switch e := event.(type) {
		case observe.Late:
			if len(e.Ranges) == 0 {
				a.late = append(a.late, reported{sender: nothing})
			}
			for _, r := range e.Ranges {
				a.late = append(a.late, reported{e.Sender, e.Stream, r, time.Now()})
			}
		case observe.Missing:
			if len(e.Ranges) == 0 {
				a.missing = append(a.missing, reported{sender: nothing})
			}
			for _, r := range e.Ranges {
				a.missing = append(a.missing, reported{e.Sender, e.Stream, r, time.Now()})
			}
		case observe.CryptoError:
			a.codes = append(a.codes, e.Reason)
		case observe.Accounted:
			a.last, a.looks = e, a.looks+1
		}
	})
}

// wait lets a look that runs end, and returns the counts of the last one.
func (a *accounts) wait() observe.Accounted {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// poll receives for d and completes what comes.
func (x *fixture) poll(r *queue.Receiver, d time.Duration) (bodies []string) {
	x.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		for _, m := range x.Some(r.Receive(x.Context(), 10)) {
			bodies = append(bodies, string(m.Body))
			x.Must(m.Complete(x.Context()))
		}
	}
	return bodies
}

// senderNamed returns a sender that holds a sender key, over a client of its own.
func (x *fixture) senderNamed(id string, broker driver.Broker) *queue.Sender {
	x.Helper()
	master, err := x.Ring.GetKey(x.Context(), "k1")
	x.Must(err)
	key, err := master.Sender(id)
	x.Must(err)
	ring, err := keys.NewRing()
	x.Must(err)
	x.Must(ring.Add(key))
	x.Must(ring.SetCurrent("k1"))
	c, err := queue.New(broker, &queue.Options{Keys: ring, Crypto: queue.CryptoConfig{Enabled: true}, Logger: quiet()})
	x.Must(err)
	s, err := c.Sender(x.Context(), orders, nil)
	x.Must(err)
	return s
}

// drop lets the broker lose the stored messages with these bodies' message IDs.
func (x *fixture) drop(ids ...string) (taken []driver.Message) {
	x.Helper()
	x.Rewrite(orders, func(all []driver.Message) []driver.Message {
		return slices.DeleteFunc(all, func(m driver.Message) bool {
			if !slices.Contains(ids, m.ID) {
				return false
			}
			taken = append(taken, m)
			return true
		})
	})
	return taken
}

const (
	testMissingAfter = time.Hour
	testMaxAge       = 4 * time.Hour
	testMissing      = testMaxAge + 30*time.Second // and MaxClockSkew
)

// accounted is a fixture whose receivers account into a.
func accounted(a *accounts) func(*fixture, *queue.Options) {
	return func(_ *fixture, o *queue.Options) {
		o.Observer = a.observer()
		o.Crypto.MaxMessageAge = testMaxAge
	}
}

// span is a stretch of one stream that is expected to be reported.
type span struct {
	sender      string
	first, last uint64
}

// checkReports compares reports with the ranges expected and the time by which they are
// due. Ranges of one stream that touch count as one.
func checkReports(t *testing.T, what string, got []reported, want []span, due time.Time) {
	t.Helper()
	var spans []span
	for _, r := range got {
		if r.at.After(due) {
			t.Errorf("%s: %d-%d of %q was reported %s late", what, r.First, r.Last, r.sender, r.at.Sub(due))
		}
		if n := len(spans); n > 0 && spans[n-1].sender == r.sender && spans[n-1].last+1 == r.First {
			spans[n-1].last = r.Last
			continue
		}
		spans = append(spans, span{r.sender, r.First, r.Last})
	}
	if !slices.Equal(spans, want) {
		t.Errorf("%s: %v, want %v", what, spans, want)
	}
}

// A broker that drops k < n of n messages of a sender is found out, with the right sender
// and ranges, at the start, in the middle and before the end.
func TestDroppedMessagesAreReported(t *testing.T) {
	const n = 9
	for _, c := range []struct {
		name string
		drop []int
		fail []int // that the broker refuses: never sent
		want []span
	}{
		{"the first", []int{1}, nil, []span{{"s1", 1, 1}}},
		{"the first three", []int{1, 2, 3}, nil, []span{{"s1", 1, 3}}},
		{"the middle", []int{4, 5}, nil, []span{{"s1", 4, 5}}},
		{"the last but one", []int{8}, nil, []span{{"s1", 8, 8}}},
		{"every other", []int{2, 4, 6, 8}, nil, []span{{"s1", 2, 2}, {"s1", 4, 4}, {"s1", 6, 6}, {"s1", 8, 8}}},
		{"all but the last", []int{1, 2, 3, 4, 5, 6, 7, 8}, nil, []span{{"s1", 1, 8}}},
		{"beside sends that fail", []int{3, 5}, []int{2, 4}, []span{{"s1", 3, 3}, {"s1", 5, 5}}},
		{"only sends that fail", nil, []int{1, 2, 5}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &accounts{}
			inBubble(t, accounted(a), func(x *fixture) {
				r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MissingAfter: testMissingAfter})
				x.Wait(time.Minute) // the streams open after the store's birth, by any clock
				broker := &fixturetest.FaultyBroker{Broker: x.Broker.Connect()}
				s := x.senderNamed("s1", broker)
				for i := 1; i <= n; i++ {
					broker.OnSend = nil
					if slices.Contains(c.fail, i) {
						broker.OnSend = func(m []*driver.Message) []driver.SendResult {
							return []driver.SendResult{{Err: driver.Errorf(driver.Full, "full")}}
						}
					}
					_, err := s.Send(x.Context(), &queue.Message{ID: fmt.Sprint("m", i), Body: []byte("a")})
					if (err != nil) != slices.Contains(c.fail, i) {
						x.Fatal(err)
					}
				}
				// A restart is another stream. Nothing is lost of it.
				again := x.senderNamed("s1", x.Broker.Connect())
				for i := range 3 {
					_, err := again.Send(x.Context(), &queue.Message{ID: fmt.Sprint("again", i), Body: []byte("a")})
					x.Must(err)
				}
				ids := make([]string, len(c.drop))
				for i, d := range c.drop {
					ids[i] = fmt.Sprint("m", d)
				}
				if taken := x.drop(ids...); len(taken) != len(c.drop) {
					x.Fatalf("dropped %d messages, want %d", len(taken), len(c.drop))
				}
				arrived := time.Now()
				if got, want := len(x.poll(r, 10*time.Second)), n-len(c.drop)-len(c.fail)+3; got != want {
					x.Fatalf("%d messages arrived, want %d", got, want)
				}
				x.poll(r, testMissingAfter-20*time.Second)
				if got := a.wait(); got.Late != 0 || len(a.late) > 0 {
					x.Errorf("late too early: %+v", got)
				}
				// Late and missing are found by the next fetch, which waits for a second, and
				// the store's times may be late by one.
				x.poll(r, 30*time.Second)
				got := a.wait()
				checkReports(t, "late", a.late, c.want, arrived.Add(testMissingAfter+5*time.Second))
				if got.Late != uint64(len(c.drop)) || got.Missing != 0 {
					x.Errorf("the gauges say %d late, %d missing, want %d and 0", got.Late, got.Missing, len(c.drop))
				}
				x.poll(r, testMissing-testMissingAfter-40*time.Second)
				if len(a.missing) > 0 {
					x.Error("missing too early")
				}
				x.poll(r, time.Minute)
				got = a.wait()
				checkReports(t, "missing", a.missing, c.want, arrived.Add(testMissing+5*time.Second))
				if got.Late != 0 || got.Missing != uint64(len(c.drop)) {
					x.Errorf("the gauges say %d late, %d missing, want 0 and %d", got.Late, got.Missing, len(c.drop))
				}
			})
		})
	}
}

// What arrives after all leaves the gauge, and what an operator accepts does. Neither is
// reported again.
func TestLateMessageLeavesTheGauge(t *testing.T) {
	a := &accounts{}
	inBubble(t, accounted(a), func(x *fixture) {
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MissingAfter: testMissingAfter})
		x.Wait(time.Minute)
		s := x.senderNamed("s1", x.Broker.Connect())
		for i := range 6 {
			_, err := s.Send(x.Context(), &queue.Message{ID: fmt.Sprint("m", i), Body: []byte("a")})
			x.Must(err)
		}
		back := x.drop("m1", "m2", "m4")
		x.poll(r, testMissingAfter+time.Minute)
		if got := a.wait(); got.Late != 3 {
			x.Fatalf("%d late, want 3", got.Late)
		}
		x.Inject(orders, back[0])
		x.poll(r, 20*time.Minute)
		if got := a.wait(); got.Late != 2 {
			x.Errorf("%d late after one arrived, want 2", got.Late)
		}
		e, err := envelope.Parse(back[1].Body)
		x.Must(err)
		_, err = x.Store.Note(x.Context(), orders, []replay.Note{{Sender: "s1", Stream: e.Stream, Range: replay.Range{First: e.Sequence, Last: e.Sequence}, Kind: replay.NoteAccepted}})
		x.Must(err)
		x.poll(r, 20*time.Minute)
		if got := a.wait(); got.Late != 1 || got.Missing != 0 {
			x.Errorf("%+v after one was accepted, want 1 late", got)
		}
		// What comes too late is dead-lettered as expired, and is not missing any more.
		x.poll(r, testMissing)
		if got := a.wait(); got.Missing != 1 {
			x.Fatalf("%d missing, want 1", got.Missing)
		}
		x.Inject(orders, back[2])
		x.poll(r, 20*time.Minute)
		if got := a.wait(); got.Missing != 0 || got.Late != 0 {
			x.Errorf("%+v after the last arrived too late, want none", got)
		}
		if len(x.Rejected) != 1 || x.Rejected[0].Reason != driver.ReasonMessageExpired {
			x.Errorf("rejected %v", x.Rejected)
		}
		if len(a.late) != 2 || len(a.missing) != 1 {
			x.Errorf("reported %d late ranges, %d missing ones, want 2 (of three messages) and 1", len(a.late), len(a.missing))
		}
	})
}

// Receivers that share a store report each message once, also after one that reported is
// gone.
func TestOneReportForAFleet(t *testing.T) {
	a, b := &accounts{}, &accounts{}
	inBubble(t, accounted(a), func(x *fixture) {
		second, err := queue.New(x.Broker.Connect(), &queue.Options{
			Keys: x.Ring, ReplayStore: x.Store, Observer: b.observer(), Logger: quiet(),
			Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true, MaxMessageAge: testMaxAge},
		})
		x.Must(err)
		o := &queue.ReceiverOptions{Wait: time.Second, MissingAfter: testMissingAfter}
		r1 := x.Receiver(orders, o)
		r2, err := second.Receiver(x.Context(), orders, o)
		x.Must(err)
		x.Wait(time.Minute)
		s := x.senderNamed("s1", x.Broker.Connect())
		for i := range 4 {
			_, err := s.Send(x.Context(), &queue.Message{ID: fmt.Sprint("m", i), Body: []byte("a")})
			x.Must(err)
		}
		x.drop("m1")
		for range 40 {
			x.poll(r1, time.Minute)
			x.poll(r2, time.Minute)
		}
		first, other := a.wait(), b.wait()
		if first.Late != 1 || other.Late != 1 {
			x.Errorf("gauges say %d and %d late, want 1 each", first.Late, other.Late)
		}
		if n := len(a.late) + len(b.late); n != 1 {
			x.Errorf("%d reports, want 1", n)
		}
		x.Must(r1.Close(x.Context()))
		x.poll(r2, testMissing)
		if got := b.wait(); got.Missing != 1 || len(b.missing) != 1 || len(a.missing) != 0 {
			x.Errorf("%+v, %d reports, want one", got, len(b.missing))
		}
		x.Must(second.Close(x.Context()))
	})
}

// Several receivers of one group in a Client look at the streams once; the next one takes
// over from one that was closed.
func TestOneLookForAGroup(t *testing.T) {
	a := &accounts{}
	inBubble(t, accounted(a), func(x *fixture) {
		o := &queue.ReceiverOptions{Wait: time.Second, MissingAfter: testMissingAfter}
		first, second := x.Receiver(orders, o), x.Receiver(orders, o)
		for range 30 {
			x.poll(first, time.Second)
			x.poll(second, time.Second)
		}
		a.wait()
		if a.looks != 1 {
			x.Errorf("%d looks within a minute, want 1", a.looks)
		}
		x.Must(first.Close(x.Context()))
		x.poll(second, 2*time.Second)
		a.wait()
		if a.looks != 2 {
			x.Errorf("%d looks after the first receiver was closed, want 2", a.looks)
		}
		x.poll(second, testMissingAfter)
		a.wait()
		if a.looks < 6 || a.looks > 7 {
			x.Errorf("%d looks after another hour, want 4 more", a.looks)
		}
	})
}

func TestNoAccounting(t *testing.T) {
	a := &accounts{}
	inBubble(t, accounted(a), func(x *fixture) {
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MissingAfter: testMissingAfter, NoAccounting: true})
		x.Wait(time.Minute)
		s := x.senderNamed("s1", x.Broker.Connect())
		for i := range 4 {
			_, err := s.Send(x.Context(), &queue.Message{ID: fmt.Sprint("m", i), Body: []byte("a")})
			x.Must(err)
		}
		x.drop("m1")
		x.poll(r, testMissing+time.Hour)
		got := a.wait()
		if len(a.late)+len(a.missing) > 0 || got.Accounting || got.Late+got.Missing > 0 {
			x.Errorf("%+v, %d late, %d missing", got, len(a.late), len(a.missing))
		}
		if got.Full <= 0 {
			x.Errorf("Full is %v: the store's fullness is told all the same", got.Full)
		}
	})
}

// streamsStore is a store whose Streams are made up.
type streamsStore struct {
	replay.Store
	streams []replay.Stream
	err     error
}

func (s *streamsStore) Streams(context.Context, string) iter.Seq2[replay.Stream, error] {
	return func(yield func(replay.Stream, error) bool) {
		for _, v := range s.streams {
			if !yield(v, nil) {
				return
			}
		}
		if s.err != nil {
			yield(replay.Stream{}, s.err)
		}
	}
}

// A stream that cannot be accounted for is reported once and counts as none.
func TestAccountingImplausible(t *testing.T) {
	a := &accounts{}
	made := &streamsStore{streams: []replay.Stream{{Sender: "s1", Stream: [16]byte{7}, Implausible: true}}}
	observed := func(x *fixture, o *queue.Options) {
		accounted(a)(x, o)
		made.Store = x.Store
		o.ReplayStore = made
	}
	inBubble(t, observed, func(x *fixture) {
		x.poll(x.Receiver(orders, nil), 2*time.Hour)
		got := a.wait()
		if !slices.Equal(a.codes, []string{driver.ReasonAccounting}) || got.Late+got.Missing > 0 || a.looks < 8 {
			x.Errorf("codes %q, %+v in %d looks", a.codes, got, a.looks)
		}
		if n := strings.Count(x.Log.String(), "Accounting implausible"); n != 1 {
			x.Errorf("logged %d times, want 1", n)
		}
	})
}

// TestAccountingWithoutStats: a store that does not say what it holds gives no account, and is asked again.
func TestAccountingWithoutStats(t *testing.T) {
	a := &accounts{}
	var store *statsAway
	away := func(x *fixture, o *queue.Options) {
		accounted(a)(x, o)
		store = &statsAway{Store: x.Store}
		store.away.Store(true)
		o.ReplayStore = store
	}
	inBubble(t, away, func(x *fixture) {
		r := x.Receiver(orders, nil)
		x.poll(r, 2*time.Hour)
		if a.wait(); a.looks != 0 {
			x.Errorf("%d accounts without what the store holds", a.looks)
		}
		store.away.Store(false)
		x.poll(r, 2*time.Hour)
		if a.wait(); a.looks == 0 {
			x.Error("no account since the store answers")
		}
	})
}

// statsAway is a replay store that does not say what it holds.
type statsAway struct {
	replay.Store
	away atomic.Bool
}

func (s *statsAway) Stats(ctx context.Context) (replay.Stats, error) {
	if s.away.Load() {
		return replay.Stats{}, errFailing
	}
	return s.Store.Stats(ctx)
}

// A store that does not list its streams is said once, and receiving goes on.
func TestAccountingWithoutAnswer(t *testing.T) {
	a := &accounts{}
	made := &streamsStore{err: errors.New("read error")}
	observed := func(x *fixture, o *queue.Options) {
		accounted(a)(x, o)
		made.Store = x.Store
		o.ReplayStore = made
	}
	inBubble(t, observed, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		if got := x.poll(x.Receiver(orders, nil), 2*time.Hour); len(got) != 1 {
			x.Errorf("%d messages, want 1", len(got))
		}
		a.wait()
		if n := strings.Count(x.Log.String(), "Missing messages are not looked for"); n != 1 || a.looks != 0 {
			x.Errorf("logged %d times, want 1; %d accounts", n, a.looks)
		}
	})
}

// A purge of dead letters settles them: also those that a broker moved by its own rules,
// which no receiver parked.
func TestPurgeSettles(t *testing.T) {
	for _, purge := range []bool{false, true} {
		t.Run(fmt.Sprint("purge=", purge), func(t *testing.T) {
			a := &accounts{}
			inBubble(t, accounted(a), func(x *fixture) {
				r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MissingAfter: testMissingAfter})
				x.Wait(time.Minute)
				s := x.senderNamed("s1", x.Broker.Connect())
				for i := range 4 {
					_, err := s.Send(x.Context(), &queue.Message{ID: fmt.Sprint("m", i), Body: []byte("a")})
					x.Must(err)
				}
				moveToDead(x, "m1")
				x.poll(r, time.Minute)
				if purge {
					d, err := deadletter.Open(x.Context(), x.Client, orders, nil)
					x.Must(err)
					n, err := d.Purge(x.Context(), &deadletter.Filter{})
					if err != nil || n != 1 {
						x.Fatalf("Purge = %d, %v", n, err)
					}
					x.Must(d.Close(x.Context()))
				}
				x.poll(r, 2*testMissingAfter)
				if got := a.wait(); got.Late == 0 != purge {
					x.Errorf("%d late", got.Late)
				}
			})
		})
	}
}

// moveToDead lets the broker dead-letter a message that no receiver of the group saw.
func moveToDead(x *fixture, id string) {
	x.Helper()
	c, err := queue.New(x.Broker.Connect(), &queue.Options{Keys: x.Ring, Logger: slog.New(slog.DiscardHandler), Crypto: queue.CryptoConfig{Enabled: true, MaxMessageAge: testMaxAge}})
	x.Must(err)
	r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
	x.Must(err)
	all, err := r.Receive(x.Context(), 10)
	x.Must(err)
	for _, d := range all {
		if d.ID == id {
			x.Must(d.DeadLetter(x.Context(), queue.Reason{Code: "by_hand"}))
			continue
		}
		x.Must(d.Abandon(x.Context(), 0))
	}
}

// noteless is a store that takes no notes.
type noteless struct{ replay.Store }

func (noteless) Note(context.Context, string, []replay.Note) ([]replay.Noted, error) {
	return nil, errors.New("read-only")
}

// A purge deletes nothing while the store cannot be told of it.
func TestPurgeWithoutAnswer(t *testing.T) {
	set := func(x *fixture, o *queue.Options) { o.ReplayStore = noteless{x.Store} }
	inBubble(t, set, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		x.Must(x.One(x.Receiver(orders, nil)).DeadLetter(x.Context(), queue.Reason{Code: "odd"}))
		d, err := deadletter.Open(x.Context(), x.Client, orders, nil)
		x.Must(err)
		n, err := d.Purge(x.Context(), &deadletter.Filter{})
		if n != 0 || !errors.Is(err, queue.ErrReplayStore) || len(x.DeadReasons(orders)) != 1 {
			x.Errorf("Purge = %d, %v; %d letters are left, want 1", n, err, len(x.DeadReasons(orders)))
		}
		x.Must(d.Close(x.Context()))
	})
}

// A report whose note the store entered without an answer is made by the next look, once: no
// other receiver makes it, because for each of them the note says nothing new.
func TestReportWhoseNoteHasNoAnswer(t *testing.T) {
	for _, entered := range []bool{true, false} {
		a := &accounts{}
		inHookedBubble(t, accounted(a), func(x *fixture, store *hookedStore) {
			o := &queue.ReceiverOptions{Wait: time.Second, MissingAfter: testMissingAfter}
			r := x.Receiver(orders, o)
			x.Wait(time.Minute)
			s := x.senderNamed("s1", x.Broker.Connect())
			for i := range 6 {
				_, err := s.Send(x.Context(), &queue.Message{ID: fmt.Sprint("m", i), Body: []byte("a")})
				x.Must(err)
			}
			begin := time.Now()
			x.drop("m1", "m2", "m4")
			lost := map[replay.NoteKind]int{}
			store.note = func(ctx context.Context, n []replay.Note) ([]replay.Noted, error) {
				kind := n[0].Kind
				if lost[kind]++; lost[kind] > 1 {
					return store.Store.Note(ctx, orders, n)
				}
				if entered {
					_, err := store.Store.Note(ctx, orders, n)
					x.Must(err)
				}
				return nil, errors.New("reset")
			}
			x.poll(r, testMissing+time.Hour)
			a.wait()
			want := []span{{"s1", 2, 3}, {"s1", 5, 5}}
			checkReports(t, fmt.Sprintf("late, entered %t", entered), a.late, want, begin.Add(testMissingAfter+20*time.Minute))
			checkReports(t, fmt.Sprintf("missing, entered %t", entered), a.missing, want, begin.Add(testMissing+20*time.Minute))
		})
	}
}

// sharedStore is a replay store that says whether several processes share it.
type sharedStore struct {
	replay.Store
	shared bool
}

func (s sharedStore) Stats(ctx context.Context) (replay.Stats, error) {
	stats, err := s.Store.Stats(ctx)
	stats.Shared = s.shared
	return stats, err
}

// The report of a missing message says that other processes may have received it, if the
// store is not theirs, too.
func TestMissingFromAStoreOfOneProcess(t *testing.T) {
	for _, shared := range []bool{false, true} {
		inBubble(t, func(x *fixture, o *queue.Options) {
			o.Crypto.MaxMessageAge, o.ReplayStore = testMaxAge, sharedStore{x.Store, shared}
		}, func(x *fixture) {
			s, r := x.Sender(orders), x.Receiver(orders, &queue.ReceiverOptions{Wait: 5 * time.Minute, MissingAfter: testMissingAfter})
			for _, id := range []string{"1", "2", "3"} {
				_, err := s.Send(x.Context(), &queue.Message{ID: id, Body: []byte("a")})
				x.Must(err)
			}
			x.drop("2")
			x.poll(r, testMissing+testMissingAfter)
			want := map[bool]int{false: 1}[shared]
			if lines, notes, alone := x.logged("Messages are MISSING"), x.logged("serves one process"), x.logged("serves this process alone"); lines != 1 || notes != 2*want || alone != want {
				x.Errorf("shared %t: %d lines, %d of them and of the late one with a note, %d about the store; want 1, %d and %d", shared, lines, notes, alone, 2*want, want)
			}
		})
	}
}

// blockedStreams is a store that lists its streams once it is told to, although its caller has left.
type blockedStreams struct {
	replay.Store
	open chan struct{}
}

func (s *blockedStreams) Streams(context.Context, string) iter.Seq2[replay.Stream, error] {
	return func(func(replay.Stream, error) bool) { <-s.open }
}

// Close of the last receiver of a group waits for the look at the streams, so that the store can
// be closed after it, or for its context. Another one's waits for nothing.
func TestCloseWaitsForTheLook(t *testing.T) {
	store := &blockedStreams{}
	set := func(x *fixture, o *queue.Options) {
		store.Store, store.open = x.Store, make(chan struct{})
		o.ReplayStore = store
	}
	inBubble(t, set, func(x *fixture) {
		receivers := []*queue.Receiver{x.Receiver(orders, nil), x.Receiver(orders, nil), x.Receiver("ledger", nil)}
		for _, r := range receivers {
			x.None(r, queue.ErrNoMessage)
		}
		synctest.Wait() // the looks have begun
		x.Must(receivers[0].Close(x.Context()))
		begin := time.Now()
		ctx, cancel := context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		if err := receivers[2].Close(ctx); time.Since(begin) != time.Second {
			x.Errorf("Close = %v after %s, want that it waits for its context", err, time.Since(begin))
		}
		closed := make(chan error, 1)
		go func() { closed <- receivers[1].Close(x.Context()) }()
		x.Wait(time.Minute)
		synctest.Wait()
		select {
		case err := <-closed:
			x.Errorf("Close = %v beside the look", err)
		default:
			close(store.open)
			x.Must(<-closed)
		}
	})
}
