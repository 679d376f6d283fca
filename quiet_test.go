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
		o.Logger = slog.New(slog.NewJSONHandler(x.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}, func(x *fixture) {
		x.send(&queue.Message{Body: []byte("a")})
		copied := x.steal()
		r := x.receiver(orders, nil)
		x.must(x.one(r).Complete(x.Context()))
		x.inject(orders, copied)
		x.none(r, queue.ErrNoMessage) // completed silently
		if x.log.Len() > 0 {
			x.Errorf("it says %s", x.log)
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
			x.broker = memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Retention: c.retention}})
			o.Crypto.TrackReplays = c.track
		}, func(x *fixture) {
			r := x.receiver(orders, nil)
			x.send(&queue.Message{Body: []byte("a")})
			x.wait(c.want - time.Second)
			x.must(x.one(r).Complete(x.Context()))
			if c.retention == c.want {
				return // the broker drops what is older
			}
			x.send(&queue.Message{Body: []byte("a")})
			x.wait(c.want + 30*time.Second + time.Second)
			x.none(r, queue.ErrMessageExpired)
		})
	}
}
