package queue_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/memqueue"
)

// The lines for each message are at INFO: a logger of WARN says nothing while all is well.
func TestLogAtWarnIsQuiet(t *testing.T) {
	inBubble(t, func(x *fixture, o *queue.Options) {
		o.Logger = slog.New(slog.NewJSONHandler(x.Log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		copied := x.Steal()
		r := x.Receiver(orders, nil)
		x.Must(x.One(r).Complete(x.Context()))
		x.Inject(orders, copied)
		x.None(r, queue.ErrNoMessage) // completed silently
		if x.Log.Len() > 0 {
			x.Errorf("it says %s", x.Log)
		}
	})
}

// With a replay store the age that a message may have follows the broker's retention, if
// the broker tells it.
func TestDefaultAgeFollowsRetention(t *testing.T) {
	for _, c := range []struct {
		track     bool
		retention time.Duration
		want      time.Duration
	}{
		{track: true, retention: 24 * time.Hour, want: 24 * time.Hour},
		{track: true, want: 5 * time.Minute},
		{track: false, retention: 24 * time.Hour, want: 5 * time.Minute},
	} {
		inBubble(t, func(x *fixture, o *queue.Options) {
			x.Broker = memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Retention: c.retention}})
			o.Crypto.TrackReplays = c.track
		}, func(x *fixture) {
			r := x.Receiver(orders, nil)
			x.Send(&queue.Message{Body: []byte("a")})
			x.Wait(c.want - time.Second)
			x.Must(x.One(r).Complete(x.Context()))
			if c.retention == c.want {
				return // the broker drops what is older
			}
			x.Send(&queue.Message{Body: []byte("a")})
			x.Wait(c.want + 30*time.Second + time.Second)
			x.None(r, queue.ErrMessageExpired)
		})
	}
}
