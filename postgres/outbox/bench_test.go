package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/postgres/outbox"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// BenchmarkForward forwards messages of 1 KiB from a server that waits for the disk to a
// broker that answers at once, so that it measures the outbox alone: with no sessions, in
// many, and in one, whose messages go one after the other.
func BenchmarkForward(b *testing.B) {
	const messages = 1000
	server, err := postgres.Start(&postgres.Options{Durable: true})
	postgres.Require(b, err)
	defer func() { _ = server.Close() }()
	for _, sessions := range []int{0, 100, 1} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			ctx := b.Context()
			box, err := outbox.Open(ctx, fmt.Sprintf("%s?schema=b%d", server.URL("postgres", "postgres"), schemas.Add(1)), nil)
			must(b, err)
			defer func() { _ = box.Close(ctx) }()
			target := memqueue.New(nil)
			key, err := keys.Generate("k", nil)
			must(b, err)
			ring, err := keys.NewRing(key)
			must(b, err)
			client, err := queue.New(target, &queue.Options{Keys: ring, Crypto: queue.CryptoConfig{Enabled: true}, Logger: slog.New(slog.DiscardHandler)})
			must(b, err)
			defer func() { _ = client.Close(ctx) }()
			sender, err := client.Sender(ctx, orders, nil)
			must(b, err)
			db, err := pgx.Connect(ctx, server.URL("postgres", "postgres"))
			must(b, err)
			defer func() { _ = db.Close(ctx) }()
			for b.Loop() {
				b.StopTimer()
				var all []*queue.Prepared
				for i := range messages {
					m := &queue.Message{Body: make([]byte, 1024)}
					if sessions > 0 {
						m.SessionID = fmt.Sprint(i % sessions)
					}
					p, err := sender.Prepare(ctx, m)
					must(b, err)
					all = append(all, p)
				}
				must(b, pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return box.Put(ctx, tx, all...) }))
				var left atomic.Int64
				left.Store(messages)
				running, stop := context.WithCancel(ctx)
				f, err := outbox.NewForwarder(ctx, box, target, orders, &outbox.ForwarderOptions{
					Logger: slog.New(slog.DiscardHandler),
					Observer: observe.Func(func(_ context.Context, _ observe.Source, event any) {
						if _, ok := event.(observe.Sent); ok && left.Add(-1) == 0 {
							stop()
						}
					}),
				})
				must(b, err)
				b.StartTimer()
				must(b, f.Run(running)) // ends when the last is removed
			}
			b.ReportMetric(float64(messages*b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
