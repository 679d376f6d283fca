package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/postgres/outbox"
)

const scope = "github.com/queue-runtime/queue/examples/webhook-router"

// Router sends webhooks to queues. It is safe for concurrent use.
type Router struct {
	config     *Config
	log        *slog.Logger
	telemetry  *service.Telemetry
	client     *queue.Client
	keys       []*keys.Cached
	senders    [routes]*queue.Sender
	database   *database     // nil: webhooks go to the broker at once
	slots      chan struct{} // one for each request that is worked on
	failed     atomic.Int64  // when the broker last failed to confirm, in Unix nanoseconds; 0: it has confirmed since
	deliveries metric.Int64Counter
	inFlight   metric.Int64UpDownCounter
}

// Open opens the broker, the keys and the three queues. Close ends it.
func Open(ctx context.Context, c *Config, t *service.Telemetry, log *slog.Logger) (*Router, error) {
	broker, err := connect.OpenBroker(ctx, c.Broker)
	if err != nil {
		return nil, fmt.Errorf("BROKER_URL: %w", err)
	}
	return New(ctx, c, broker, t, log)
}

// New is Open over a broker that is open already, which the Router owns from then
// on, whether or not New fails.
func New(ctx context.Context, c *Config, broker driver.Broker, t *service.Telemetry, log *slog.Logger) (_ *Router, err error) {
	r := &Router{config: c, log: log, telemetry: t, slots: make(chan struct{}, c.MaxInFlight)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close(context.WithoutCancel(ctx)), broker.Close(context.WithoutCancel(ctx)))
		}
	}()
	if r.deliveries, err = t.Meter.Meter(scope).Int64Counter("webhook.deliveries", metric.WithUnit("{delivery}"),
		metric.WithDescription("Webhooks, by what became of them.")); err != nil {
		return nil, err
	}
	if r.inFlight, err = t.Meter.Meter(scope).Int64UpDownCounter("webhook.in_flight", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that are worked on.")); err != nil {
		return nil, err
	}
	observer, err := t.Observer(c.Broker)
	if err != nil {
		return nil, err
	}
	byQueue := make(map[string]keys.Provider)
	for _, t := range c.targets() {
		if t.keys == "" {
			continue
		}
		k, err := connect.OpenKeysCached(ctx, t.keys, &keys.CachedOptions{OnEvent: observer.KeyCache(t.queue)})
		if err != nil {
			return nil, fmt.Errorf("%s_KEYS_URL: %w", t.variable, err)
		}
		r.keys = append(r.keys, k)
		byQueue[t.queue] = k
	}
	r.client, err = queue.New(broker, &queue.Options{
		Crypto:      queue.CryptoConfig{Enabled: c.Encrypt},
		KeysFor:     func(name string) keys.Provider { return byQueue[name] },
		Environment: c.Environment,
		Logger:      log,
		Observer:    observer,
	})
	if err != nil {
		return nil, err
	}
	for i, t := range c.targets() {
		if r.senders[i], err = r.client.Sender(ctx, t.queue, nil); err != nil {
			return nil, fmt.Errorf("%s_QUEUE: %w", t.variable, err)
		}
		if r.senders[i].Capabilities().Dedup == driver.None {
			log.Warn("This broker drops no repeats: bots must tell them by the message ID", "queue", t.queue)
		}
	}
	if c.Database == "" {
		return r, nil
	}
	var queues []string
	for _, t := range c.targets() {
		queues = append(queues, t.queue)
	}
	r.database, err = openDatabase(ctx, c.Database, r.client, queues, &outbox.ForwarderOptions{
		Observer: observer, Environment: c.Environment, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	if err := r.watch(); err != nil {
		return nil, err
	}
	r.database.forward(log)
	return r, nil
}

// Close lets the broker and the keys go. Requests that are under way fail.
func (r *Router) Close(ctx context.Context) error {
	var errs []error
	if r.database != nil {
		errs = append(errs, r.database.close(ctx))
	}
	if r.client != nil {
		errs = append(errs, r.client.Close(ctx))
	}
	for _, k := range r.keys {
		errs = append(errs, k.Close(ctx))
	}
	return errors.Join(errs...)
}

// unreadyFor is how long a failure speaks against the router. After that it is ready
// again, so that a webhook finds out whether the broker is back.
const unreadyFor = 10 * time.Second

// Check fails while the broker, or the keys, last failed. It asks nothing itself: that
// would need the right to do more than to send.
func (r *Router) Check(context.Context) error {
	if at := r.failed.Load(); at != 0 && time.Since(time.Unix(0, at)) < unreadyFor {
		return errors.New("the last webhook was not confirmed")
	}
	return nil
}

// count notes what became of a webhook.
func (r *Router) count(ctx context.Context, outcome string) {
	r.deliveries.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}

// webhook is one that was verified.
type webhook struct {
	event    string
	delivery string
	body     []byte
}

// send seals a webhook and sends it. When it returns nil the broker has confirmed it, or
// the router's database has it.
func (r *Router) send(ctx context.Context, w *webhook) (queueName string, err error) {
	to := routeOf(w.event)
	session, err := sessionOf(w.body, w.delivery)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, r.config.SendTimeout)
	defer cancel()
	m := &queue.Message{
		ID:          w.delivery, // and so the DedupID
		SessionID:   session,
		ContentType: contentType,
		Attributes:  map[string]string{EventAttribute: w.event},
		Body:        w.body,
	}
	name := r.config.targets()[to].queue
	if r.database == nil {
		_, err = r.senders[to].Send(ctx, m)
		return name, err
	}
	p, err := r.senders[to].Prepare(ctx, m)
	if err != nil {
		return name, err
	}
	return name, r.database.take(ctx, w, p)
}

// EventAttribute has the name of the event, as GitHub sends it in X-GitHub-Event.
const EventAttribute = "github-event"

// Run is the program: it serves until ctx ends, and then answers what is under
// way. A nil environ stands for the process's environment.
func Run(ctx context.Context, environ map[string]string, logs io.Writer) (err error) {
	var c Config
	if err := service.Load(&c, environ); err != nil {
		return err
	}
	log := service.NewLogger(logs, "webhook-router", c.LogLevel)
	t, err := service.NewTelemetry(ctx, "webhook-router")
	if err != nil {
		return err
	}
	defer service.Finish(ctx, &err, t.Close)
	ready := &service.Readiness{}
	admin, err := service.Listen("admin", c.AdminListen, service.Admin(t.Metrics, ready), service.AdminTimeouts, log)
	if err != nil {
		return err
	}
	defer service.Finish(ctx, &err, admin.Close) // late, so that the end can be watched
	r, err := Open(ctx, &c, t, log)
	if err != nil {
		return err
	}
	defer service.Finish(ctx, &err, r.Close)
	public, err := service.Listen("webhooks", c.Listen, r.Handler(),
		service.Timeouts{Read: c.ReadTimeout, Write: c.ReadTimeout + c.SendTimeout + time.Second}, log)
	if err != nil {
		return err
	}
	ready.Check = r.Check
	ready.Begin()
	log.Info("Ready", "broker", connect.Redact(c.Broker), "encrypt", c.Encrypt)

	select {
	case <-ctx.Done():
	case err = <-public.Done():
	case err = <-admin.Done():
	}
	ready.End()
	log.Info("Stopping")
	if err == nil {
		wait := time.NewTimer(c.StopDelay)
		select {
		case <-wait.C:
		case err = <-public.Done():
		}
		wait.Stop()
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.DrainTimeout)
	defer cancel()
	return errors.Join(err, public.Close(drain))
}
