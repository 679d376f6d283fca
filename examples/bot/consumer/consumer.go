package consumer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/otel/otelqueue"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/worker"
)

// Consumer receives from one queue. Run it once.
type Consumer struct {
	client   *queue.Client
	receiver *queue.Receiver
	pool     *worker.Pool
	unwatch  func() error
}

// Parts are what a Consumer is made over. Keys and ReplayStore may be nil, as the
// configuration says.
type Parts struct {
	Broker      driver.Broker // the Consumer's from then on
	Keys        keys.Provider
	ReplayStore replay.Store
	Handler     worker.Handler

	Telemetry *service.Telemetry
	Observer  *otelqueue.Observer // nil means one of Telemetry
	Log       *slog.Logger
}

// New opens the queue. Close ends it, and also Parts.Broker if New fails.
func New(ctx context.Context, c *Config, p Parts) (_ *Consumer, err error) {
	b := &Consumer{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close(context.WithoutCancel(ctx)), p.Broker.Close(context.WithoutCancel(ctx)))
		}
	}()
	if p.Observer == nil {
		if p.Observer, err = p.Telemetry.Observer(c.Broker); err != nil {
			return nil, err
		}
	}
	b.client, err = queue.New(p.Broker, &queue.Options{
		Crypto:      c.crypto(),
		Keys:        p.Keys,
		ReplayStore: p.ReplayStore,
		Environment: c.Environment,
		Logger:      p.Log,
		Observer:    p.Observer,
	})
	if err != nil {
		return nil, err
	}
	if b.receiver, err = b.client.Receiver(ctx, c.Queue, &queue.ReceiverOptions{Senders: c.senders()}); err != nil {
		return nil, fmt.Errorf("QUEUE: %w", err)
	}
	if b.unwatch, err = otelqueue.WatchDepth(p.Telemetry.Meter, b.receiver); err != nil {
		return nil, err
	}
	b.pool, err = worker.New(&worker.Options{
		Concurrency:  c.Concurrency,
		DrainTimeout: c.DrainTimeout,
		OnError: func(ctx context.Context, d *queue.Delivery, err error) {
			// The text of an error can hold payload: its kind is enough here, and
			// the library has logged the rest of what may be told.
			p.Log.DebugContext(ctx, "Handler failed", "message_id", d.ID, "type", fmt.Sprintf("%T", err))
		},
	})
	if err != nil {
		return nil, err
	}
	return b, b.pool.Handle(b.receiver, p.Handler, &worker.HandleOptions{
		// Order within a session, one message at a time, if the broker can.
		Sessions:      b.receiver.Capabilities().Sessions != driver.None,
		SessionIdle:   c.SessionIdle,
		MaxProcessing: c.MaxProcessing,
	})
}

// Run handles messages until ctx ends, and then lets handlers finish.
func (b *Consumer) Run(ctx context.Context) error { return b.pool.Run(ctx) }

// Check fails if the broker does not answer.
func (b *Consumer) Check(ctx context.Context) error {
	_, err := b.receiver.Stats(ctx)
	return err
}

// Close lets the broker go. Call it after Run has returned.
func (b *Consumer) Close(ctx context.Context) error {
	var errs []error
	if b.unwatch != nil {
		errs = append(errs, b.unwatch())
	}
	if b.client != nil {
		errs = append(errs, b.client.Close(ctx))
	}
	return errors.Join(errs...)
}

// Run is the program: it works until ctx ends, and then finishes what is under
// way. What the bot does goes to out, as a Journal. A nil environ stands for the
// process's environment.
func Run(ctx context.Context, environ map[string]string, out, logs io.Writer) (err error) {
	var c Config
	if err := service.Load(&c, environ); err != nil {
		return err
	}
	log := service.NewLogger(logs, c.Queue, c.LogLevel)
	t, err := service.NewTelemetry(ctx, c.Queue)
	if err != nil {
		return err
	}
	defer service.Finish(ctx, &err, t.Close)
	observer, err := t.Observer(c.Broker)
	if err != nil {
		return err
	}
	ready := &service.Readiness{}
	set, err := connect.Open(ctx, connect.Config{
		Broker: c.Broker, Keys: url(c.Keys), ReplayStore: url(c.ReplayStore),
		KeyCache: &keys.CachedOptions{OnEvent: observer.KeyCache(c.Queue)},
	})
	if err != nil {
		return err
	}
	defer service.Finish(ctx, &err, set.Close)
	parts := Parts{Broker: set.Broker, Handler: Handler(c.Queue, NewJournal(out)), Telemetry: t, Observer: observer, Log: log}
	if set.Keys != nil { // a nil pointer in an interface is not nil
		parts.Keys = set.Keys
	}
	if set.ReplayStore != nil {
		parts.ReplayStore = set.ReplayStore
	} else {
		log.Warn("No replay store: the broker can have messages handled twice")
	}
	b, err := New(ctx, &c, parts)
	if err != nil {
		return err
	}
	defer service.Finish(ctx, &err, b.Close)
	ready.Check = b.Check
	admin, err := service.Listen("admin", c.AdminListen, service.Admin(t.Metrics, ready), service.AdminTimeouts, log)
	if err != nil {
		return err
	}
	defer service.Finish(ctx, &err, admin.Close)
	run, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		// Without /metrics and /healthz the bot could not be monitored.
		select {
		case e := <-admin.Done():
			stop(e)
		case <-run.Done():
		}
	}()
	context.AfterFunc(run, ready.End)
	ready.Begin()
	log.Info("Ready", "broker", connect.Redact(c.Broker), "plaintext", queue.PlaintextPolicy(c.Plaintext).String())

	err = b.Run(run)
	if cause := context.Cause(run); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(err, cause)
	}
	log.Info("Stopped")
	return err
}
