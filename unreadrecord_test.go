package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// untilSession handles sessions until the message of that ID came, and returns how long
// that took.
func (x *fixture) untilSession(r *queue.Receiver, id string, longest time.Duration) (took time.Duration, ok bool) {
	x.Helper()
	begin := time.Now()
	for time.Since(begin) < longest {
		s, err := r.NextSession(x.Context())
		if errors.Is(err, queue.ErrNoSession) {
			continue
		}
		x.Must(err)
		for d, err := range s.All(x.Context()) {
			if err != nil {
				break // blocked: the session was released
			}
			x.Must(d.Complete(x.Context()))
			if ok = d.ID == id; ok {
				break
			}
		}
		x.Must(s.Close(x.Context()))
		if ok {
			return time.Since(begin), true
		}
	}
	return time.Since(begin), false
}

// However many messages of a session cannot be opened yet, they hold it up for one
// RotationHorizon altogether, counted from when the broker took the first; those of a
// version that was not announced do not hold it up at all.
func TestOneWaitPerSession(t *testing.T) {
	const n = 8
	five := func(*fixture) driver.Message { return driver.Message{Body: []byte("QRE1\x02")} }
	unknownKey := func(x *fixture) driver.Message {
		m := x.sealed("m", time.Now(), time.Time{})
		m.Body = []byte(strings.Replace(string(m.Body), "\x02k1", "\x02k9", 1))
		return m
	}
	for name, c := range map[string]struct {
		forge    func(*fixture) driver.Message
		versions []uint8
		backlog  time.Duration // for how long the messages have waited
		longest  time.Duration
	}{
		"five bytes":                        {five, nil, 0, time.Second},
		"five bytes of a version to come":   {five, []uint8{1, 2}, 0, 15 * time.Minute},
		"unknown key":                       {unknownKey, nil, 0, 15 * time.Minute},
		"unknown key, behind a backlog":     {unknownKey, nil, 10 * time.Minute, 5 * time.Minute},
		"unknown key, behind a long outage": {unknownKey, nil, time.Hour, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(x *fixture, o *queue.Options) {
				patient(x, o)
				o.Crypto.AcceptedVersions = c.versions
			}
			inBubble(t, change, func(x *fixture) {
				x.Receiver(orders, nil)
				for i := range n {
					m := c.forge(x)
					m.ID, m.SessionID = fmt.Sprint("f", i), "s"
					x.Inject(orders, m)
				}
				x.Send(&queue.Message{ID: "legit", SessionID: "s", Body: []byte("x")})
				x.Wait(c.backlog)
				// A second has to do for releasing and accepting the session anew.
				took, ok := x.untilSession(x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: 10}), "legit", 48*time.Hour)
				if !ok || took > c.longest+time.Second {
					x.Errorf("%d forged bodies held the session up for %s (delivered: %t), want at most %s", n, took, ok, c.longest)
				}
				if got := len(x.DeadReasons(orders)); got != n {
					x.Errorf("%d dead letters, want the %d that were forged", got, n)
				}
			})
		})
	}
}

// With the defaults, one body without a key has nothing dead-lettered that stands behind
// it in its session: a message does not wait for longer than its followers live.
func TestBlockedSessionDoesNotExpire(t *testing.T) {
	for name, body := range map[string]string{"unknown version": "QRE1\x02", "malformed": "QRE1\x01"} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				x.inject2(orders, driver.Message{ID: "f", SessionID: "s", Body: []byte(body)})
				for i := range 3 {
					x.Send(&queue.Message{ID: fmt.Sprint("legit", i), SessionID: "s", Body: []byte("x")})
				}
				if _, ok := x.untilSession(x.Receiver(orders, nil), "legit2", time.Hour); !ok || len(x.DeadReasons(orders)) != 1 {
					x.Errorf("delivered: %t, dead letters %v; want the forged one alone", ok, x.DeadReasons(orders))
				}
			})
		})
	}
}

// A key that has opened nothing holds sessions up no longer than an unknown one while
// another key opens messages: forging a message under its ID needs no key.
func TestForgeriesUnderStandbyKeyInSession(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		r := x.Receiver(orders, nil)
		x.Prove(r)
		for i := range 8 {
			m := x.sealed("m", time.Now(), time.Time{})
			m.Body = []byte(strings.Replace(string(m.Body), "\x02k1", "\x02k2", 1))
			m.ID, m.SessionID = fmt.Sprint("f", i), "s"
			x.Inject(orders, m)
		}
		x.Send(&queue.Message{ID: "legit", SessionID: "s", Body: []byte("x")})
		if took, ok := x.untilSession(r, "legit", 3*time.Hour); !ok || took > 20*time.Minute {
			x.Errorf("8 forgeries held the session up for %s (delivered: %t), want at most one horizon of 15 m and one delay", took, ok)
		}
	})
}

// A flood that needs no key buries the dead letters; the alarm tells of it at once, and
// then once a minute, by an event and a line in the log.
func TestFloodRaisesAlarm(t *testing.T) {
	n := soak(6000, 100_000)
	for name, body := range map[string]string{"plaintext": "x", "marker": "QRE1", "cut": "QRE1\x01\x00", "version": "QRE1\x02"} {
		t.Run(name, func(t *testing.T) {
			var floods []observe.Flood
			watch := func(_ *fixture, o *queue.Options) {
				o.Crypto.MaxMessageAge = 24 * time.Hour // the good message comes behind all others
				o.Observer = observe.Func(func(_ context.Context, s observe.Source, event any) {
					if e, ok := event.(observe.Flood); ok && s.Queue == orders {
						floods = append(floods, e)
					}
				})
			}
			inBubble(t, watch, func(x *fixture) {
				r := x.Receiver(orders, nil)
				x.Rewrite(orders, func([]driver.Message) []driver.Message {
					return copies(driver.Message{ID: "x", Body: []byte(body)}, n)
				})
				x.Send(&queue.Message{ID: "legit", Body: []byte("x")})
				got := 0
				for second := 0; len(x.Rejected) < n || got == 0; second++ {
					if second > n/50+60 {
						x.Fatalf("%d of %d were rejected and %d delivered after %d s", len(x.Rejected), n, got, second)
					}
					got += len(x.Some(r.Receive(x.Context(), 50)))
					x.Wait(time.Second)
				}
				lines := strings.Count(x.Log.String(), "FLOOD the queue")
				want := 1 + (n/50-1)/60 // batches of 50, one a second
				if len(floods) != lines || lines < want || lines > want+1 {
					x.Errorf("%d events and %d lines for %d bodies in %d s, want %d", len(floods), lines, n, n/50, want)
				}
				told := 0
				for _, f := range floods {
					told += f.Count
				}
				if told < n/2 || told > n {
					x.Errorf("the alarms tell of %d messages, %d came", told, n)
				}
			})
		})
	}
}

// RotationHorizon beyond MaxMessageAge is refused: a key that comes later than that finds
// its messages expired. The default adapts.
func TestRotationHorizonWithinMaxMessageAge(t *testing.T) {
	inBubble(t, nil, func(x *fixture) { // messages of five minutes
		_, err := x.Client.Receiver(x.Context(), orders, &queue.ReceiverOptions{RotationHorizon: 15 * time.Minute})
		if !errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), "raise MaxMessageAge or lower RotationHorizon") {
			x.Errorf("Receiver = %v, want an error that says what to do", err)
		}
		for _, c := range []struct {
			age, want time.Duration
			skip      bool
		}{
			{5 * time.Minute, 5 * time.Minute, false},
			{time.Hour, 15 * time.Minute, false},
			{5 * time.Minute, 15 * time.Minute, true}, // no message is too old
		} {
			cfg := &queue.CryptoConfig{Enabled: true, MaxMessageAge: c.age, InsecureSkipFreshness: c.skip, Loosen: true}
			r := x.Receiver(orders, &queue.ReceiverOptions{Crypto: cfg})
			if got := r.Options().RotationHorizon; got != c.want {
				x.Errorf("MaxMessageAge %s, freshness skipped %t: RotationHorizon %s, want %s", c.age, c.skip, got, c.want)
			}
		}
	})
}

// A key that comes within RotationHorizon finds its messages alive, with the defaults too.
func TestLateKeyIsInTime(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		x.Must(x.Ring.SetCurrent("k2"))
		x.Send(&queue.Message{ID: "m", Body: []byte("x")})
		late := newRing(x.T, "k1")
		r := x.Receiver(orders, &queue.ReceiverOptions{Keys: late, Wait: time.Second})
		horizon := r.Options().RotationHorizon
		for begin := time.Now(); time.Since(begin) < horizon/2; {
			if d, err := r.ReceiveOne(x.Context()); err == nil {
				x.Fatalf("received %s without its key", d.ID)
			}
		}
		x.Must(late.Add(newKey(x.T, "k2", 2)))
		if n := x.drain(r, horizon); n != 1 {
			x.Errorf("%d messages were delivered, want 1; dead letters %v", n, x.DeadReasons(orders))
		}
	})
}

// shortCursors is a broker that knows a cursor only at the moment in which it gave it out.
type shortCursors struct{ driver.Broker }

func (b shortCursors) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return &shortCursorQueue{Queue: q}, err
}

type shortCursorQueue struct {
	driver.Queue
	at time.Time // of the last cursor
}

func (q *shortCursorQueue) Peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	if cursor != "" && !time.Now().Equal(q.at) {
		return nil, "", driver.Errorf(driver.Invalid, "the cursor has expired")
	}
	q.at = time.Now()
	return q.Queue.Peek(ctx, cursor, max)
}

// A pause ends although the broker refuses the cursor at which the last look ended: the next
// one begins anew.
func TestPauseBesideARefusedCursor(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{Broker: shortCursors{x.Broker.Connect()}}
		r := x.receives(x.behind(p, nil), nil)
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		forged := x.Steal()
		forged.Body[len(forged.Body)-1] ^= 1
		x.Rewrite(orders, func([]driver.Message) []driver.Message { return copies(forged, 1100) }) // more than one look reads
		x.Nothing(r.Receive(x.Context(), 25))
		for begin := time.Now(); time.Since(begin) < 10*time.Minute; {
			_, err := r.Receive(x.Context(), 25)
			x.failed("Receive", err, queue.ErrReceivingPaused, "receive")
			var e *queue.Error
			if errors.As(err, &e) && (!e.Transient || e.RetryAfter <= 0) {
				x.Fatalf("Receive: %+v, want an error that passes, and when", e)
			}
		}
		x.Rewrite(orders, func([]driver.Message) []driver.Message { return nil }) // they were purged
		looks := p.count("peek")
		x.drain(r, 10*time.Minute)
		if n := p.count("peek") - looks; n < 2 || n > 20 {
			x.Errorf("%d calls in ten minutes of an empty queue, want one for each look", n)
		}
		x.Send(&queue.Message{ID: "legit", Body: []byte("a")})
		if n := x.drain(r, 15*time.Minute); n != 1 {
			x.Errorf("%d delivered, want 1", n)
		}
	})
}
