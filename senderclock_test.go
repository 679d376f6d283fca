package queue_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/stream"
)

// A sender that starts again with its clock set back has another stream, whatever it says of
// the time. Its messages are handled while they are fresh, are accounted for, and are told
// apart from those that it sealed before; older ones are dead letters.
func TestSenderStartsWithItsClockSetBack(t *testing.T) {
	const age = 14 * 24 * time.Hour
	for _, back := range []time.Duration{0, time.Hour, 24 * time.Hour, age + time.Hour} {
		t.Run(back.String(), func(t *testing.T) {
			inBubble(t, func(_ *fixture, o *queue.Options) { o.Crypto.MaxMessageAge = age }, func(x *fixture) {
				x.Wait(2 * age) // the store is older than what the clock says
				r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second})
				streams := map[stream.ID]bool{}
				start := func(wall time.Time, name string) {
					call := stream.New(nil).Call(stream.Reading{Wall: wall.UnixMilli()})
					for i := range 4 {
						n := call.Next(stream.Plain, "k1", "")
						n.Confirm()
						streams[n.Stream] = true
						if i != 1 { // the broker drops the second
							x.Inject(orders, x.sealedAs(fmt.Sprint(name, i), wall, &n))
						}
					}
				}
				start(time.Now(), "before")
				for range 3 {
					x.Must(x.One(r).Complete(x.Context()))
				}
				start(time.Now().Add(-back), "after")
				for range 3 {
					if back > age {
						x.None(r, queue.ErrMessageExpired)
						continue
					}
					x.Must(x.One(r).Complete(x.Context()))
				}
				x.None(r, queue.ErrNoMessage)
				want := map[bool]int{false: 2, true: 1}[back > age] // one of each stream; of none that came too late
				missing := 0
				for s, err := range x.Store.Streams(x.Context(), orders) {
					x.Must(err)
					for _, m := range s.Missing {
						missing += int(m.Range.Last - m.Range.First + 1) //nolint:gosec // G115: small
					}
				}
				if missing != want || len(streams) != 2 {
					x.Errorf("%d are missing of %d streams, want %d of 2", missing, len(streams), want)
				}
				if dead := len(x.DeadReasons(orders)); back > age && dead != 3 || back <= age && dead != 0 {
					x.Errorf("%d dead letters", dead)
				}
			})
		})
	}
}

// sealedAs is a message that was sealed at that time by the sender's clock.
func (x *fixture) sealedAs(id string, at time.Time, n *stream.Number) driver.Message {
	x.Helper()
	key, err := x.Ring.GetKey(x.Context(), "k1")
	x.Must(err)
	s, err := envelope.NewSealer(key, "k1", "")
	x.Must(err)
	h := envelope.Header{EncryptedAt: at.UnixMilli(), Stream: n.Stream, Sequence: n.Sequence, Settled: n.Settled, Origin: orders}
	data, err := envelope.AppendContext(nil, &envelope.Context{MessageID: id}, nil)
	x.Must(err)
	body, err := s.Seal(nil, &h, []byte(id), data)
	x.Must(err)
	return driver.Message{ID: id, Body: body, Sealed: true}
}
