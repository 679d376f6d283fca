package queue_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/keys"
)

// Eight goroutines seal under one Sender, while keys flap, streams are
// replaced and the broker is silent now and then: no two messages have one identity.
func TestIdentitiesAreUnique(t *testing.T) {
	count := 10_000
	if os.Getenv("QRT_SOAK") == "1" {
		count = 1_000_000
	}
	inBubble(t, nil, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		seen := newIdentities(x)
		p := &fixturetest.FaultyBroker{Broker: x.Broker, OnSend: seen.send}
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
		x.Must(err)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		const workers = 8
		failed := make(chan error, workers)
		for w := range workers {
			go func() {
				for i := 0; i < count/workers; i += 4 {
					// In a bubble the clock moves when all wait: streams rest for a day.
					switch {
					case i%400 == 0 && w == 0:
						_ = x.Ring.SetCurrent([]keys.ID{"k1", "k2"}[i/400%2])
					case i%1000 == 0:
						time.Sleep(25 * time.Hour)
					}
					if err := sendFour(x.Context(), s, seen, fmt.Sprint(w, "-", i)); err != nil {
						failed <- err
						return
					}
				}
				failed <- nil
			}()
		}
		for range workers {
			x.Must(<-failed)
		}
		if n := len(seen.bodies); n < count || seen.repeats == 0 || len(seen.keys) != 2 || len(seen.streams) < 4 {
			x.Errorf("%d messages, %d repeats, %d keys, %d streams: too few", n, seen.repeats, len(seen.keys), len(seen.streams))
		}
		x.Must(c.Close(x.Context()))
	})
}

// sendFour seals four messages, by each way that there is.
func sendFour(ctx context.Context, s *queue.Sender, seen *identities, id string) error {
	m := func(n int) *queue.Message { return &queue.Message{ID: fmt.Sprint(id, n), SessionID: id[:1]} }
	if _, err := s.Send(ctx, m(0)); err != nil {
		return err
	}
	late := m(2)
	late.TTL = time.Hour
	if _, err := s.SendBatch(ctx, []*queue.Message{m(1), late}); err != nil {
		return err
	}
	p, err := s.Prepare(ctx, m(3))
	if err != nil {
		return err
	}
	for range 2 { // an outbox may send it twice
		seen.send([]*driver.Message{&p.Message})
	}
	return nil
}

// identities is the memory of a broker that keeps no message.
type identities struct {
	*fixture
	turn    chan struct{} // holds one token, for the goroutine that may use the rest
	bodies  map[identity][]byte
	keys    map[string]bool
	streams map[[envelope.StreamSize]byte]bool
	calls   int
	repeats int
}

type identity struct {
	sender   string
	stream   [envelope.StreamSize]byte
	sequence uint64
}

func newIdentities(x *fixture) *identities {
	return &identities{fixture: x, turn: make(chan struct{}, 1), bodies: make(map[identity][]byte), keys: make(map[string]bool), streams: make(map[[envelope.StreamSize]byte]bool)}
}

// send takes messages and answers every 100th call with silence.
func (l *identities) send(m []*driver.Message) []driver.SendResult {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	l.calls++
	out := make([]driver.SendResult, len(m))
	for i, m := range m {
		e, err := envelope.Parse(m.Body)
		if err != nil {
			l.Error(err)
			continue
		}
		id := identity{e.Sender, e.Stream, e.Sequence}
		body := e.Nonce[:]
		switch was, ok := l.bodies[id]; {
		case ok && bytes.Equal(was, body):
			l.repeats++
		case ok:
			l.Errorf("%+v names two messages", id)
		}
		l.bodies[id] = bytes.Clone(body)
		l.keys[e.KeyID], l.streams[e.Stream] = true, true
		if l.calls%100 == 0 {
			out[i].Err = driver.Errorf(driver.Unavailable, "connection reset")
		}
	}
	return out
}
