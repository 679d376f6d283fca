package observed_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/otel/otelqueue"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/worker"
)

func TestMain(m *testing.M) {
	fleet.Become()
	os.Exit(m.Run())
}

// labelSet are the labels of a metric, with every value that was seen.
type labelSet map[string]map[string]bool

func (l labelSet) add(name string, values ...string) {
	if l[name] == nil {
		l[name] = make(map[string]bool)
	}
	for _, v := range values {
		l[name][v] = true
	}
}

// vocabulary are metrics by name, as queries see them: a histogram is three.
type vocabulary map[string]labelSet

// parse takes in a scrape.
func parse(t *testing.T, r *http.Response) vocabulary {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(r.Body)
	if err != nil {
		t.Fatalf("the scrape does not parse: %v", err)
	}
	all := make(vocabulary)
	for name, f := range families {
		names := []string{name}
		if f.GetType() == dto.MetricType_HISTOGRAM {
			names = []string{name + "_bucket", name + "_sum", name + "_count"}
		}
		for _, n := range names {
			all[n] = make(labelSet)
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					all[n].add(l.GetName(), l.GetValue())
				}
			}
			if strings.HasSuffix(n, "_bucket") {
				all[n].add("le", "+Inf")
			}
		}
	}
	return all
}

// scraped returns what is scraped from a program that does everything there is a
// metric for. It is made once.
var scraped = sync.OnceValue(func() func(t *testing.T) vocabulary {
	var all vocabulary
	var once sync.Once
	return func(t *testing.T) vocabulary {
		t.Helper()
		once.Do(func() { all = exercise(t) })
		if all == nil {
			t.Fatal("the program that is scraped failed in another test")
		}
		return all
	}
})()

// program is a program with a broker in memory, whose attacker it knows.
type program struct {
	*testing.T
	broker   *memqueue.Broker
	observer *otelqueue.Observer
	client   *queue.Client
}

func (p *program) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

const name = "pulls"

func exercise(t *testing.T) vocabulary {
	t.Helper()
	telemetry, err := service.NewTelemetry(t.Context(), "program")
	p := &program{T: t, broker: memqueue.New(nil)}
	p.must(err)
	defer func() { p.must(telemetry.Close(context.Background())) }()
	p.observer, err = telemetry.Observer("mem:")
	p.must(err)
	key, err := keys.Generate("k1", &keys.Options{Expires: time.Now().Add(time.Hour)})
	p.must(err)
	ring, err := keys.NewRing(key)
	p.must(err)
	cached, err := keys.NewCached(ring, &keys.CachedOptions{OnEvent: p.observer.KeyCache("ring")})
	p.must(err)
	defer func() { p.must(cached.Close(context.Background())) }()
	store, err := replay.NewMemory(&replay.MemoryOptions{Bounds: replay.Bounds{Recent: 1}})
	p.must(err)
	p.client, err = queue.New(p.broker, &queue.Options{
		Keys: cached, ReplayStore: store, Observer: p.observer, Environment: "production", Logger: slog.New(slog.DiscardHandler),
		Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.AllowWithAlert, TrackReplays: true},
	})
	p.must(err)
	defer func() { p.must(p.client.Close(context.Background())) }()
	r, err := p.client.Receiver(t.Context(), name, &queue.ReceiverOptions{Wait: time.Millisecond, MaxAuthFailures: 1})
	p.must(err)
	stop, err := otelqueue.WatchDepth(telemetry.Meter, r)
	p.must(err)
	defer func() { p.must(stop()) }()
	p.settle(r)
	p.session(r)
	p.process(r)
	p.fail(r)
	p.reject()
	p.tell()
	p.attack(r)

	server := httptest.NewServer(telemetry.Metrics)
	defer server.Close()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	p.must(err)
	answer, err := server.Client().Do(q)
	p.must(err)
	defer func() { p.must(answer.Body.Close()) }()
	return parse(t, answer)
}

func (p *program) send(m *queue.Message) {
	p.Helper()
	s, err := p.client.Sender(p.Context(), name, nil)
	p.must(err)
	_, err = s.Send(p.Context(), m) // the client closes it: its key has no series after that
	p.must(err)
}

// settle settles messages in every way, and sends a dead letter back.
func (p *program) settle(r *queue.Receiver) {
	ctx := p.Context()
	p.send(&queue.Message{Body: []byte("x")})
	d, err := r.ReceiveOne(ctx)
	p.must(err)
	p.must(d.Renew(ctx))
	p.must(d.Abandon(ctx, 0))
	d, err = r.ReceiveOne(ctx)
	p.must(err)
	p.must(d.DeadLetter(ctx, queue.Reason{Code: "odd"}))
	dead, err := deadletter.Open(ctx, p.client, name, nil)
	p.must(err)
	_, err = dead.Redrive(ctx, nil)
	p.must(err)
	d, err = r.ReceiveOne(ctx)
	p.must(err)
	p.must(d.Complete(ctx))
}

func (p *program) session(r *queue.Receiver) {
	p.send(&queue.Message{SessionID: "s", Body: []byte("x")})
	s, err := r.NextSession(p.Context())
	p.must(err)
	all, err := s.Receive(p.Context(), 1)
	p.must(err)
	p.must(all[0].Complete(p.Context()))
	p.must(s.Close(p.Context()))
}

// process handles a message whose handler fails at first. The breaker's states are
// told by hand: they would need a broker that fails and heals.
func (p *program) process(r *queue.Receiver) {
	p.send(&queue.Message{Body: []byte("x")})
	pool, err := worker.New(nil)
	p.must(err)
	ctx, cancel := context.WithCancel(p.Context())
	defer cancel()
	p.must(pool.Handle(r, worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
		if d.Count == 1 {
			return worker.RetryAfter(errors.New("not yet"), 0)
		}
		cancel()
		return nil
	}), nil))
	p.must(pool.Run(ctx))
	for _, state := range []backoff.State{backoff.Open, backoff.HalfOpen, backoff.Closed} {
		p.observer.Breaker(p.Context(), observe.Source{Queue: name, Environment: "production"}, observe.Breaker{State: string(state)})
	}
}

// fail asks for an unknown key, and breaks a long poll off.
func (p *program) fail(r *queue.Receiver) {
	p.must(p.broker.Attacker().Rewrite(p.Context(), name, func([]driver.Message) []driver.Message { return nil }))
	long, err := p.client.Receiver(p.Context(), name, &queue.ReceiverOptions{Wait: time.Minute})
	p.must(err)
	ctx, cancel := context.WithTimeout(p.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := long.Receive(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		p.Fatalf("error %v, want %v", err, context.DeadlineExceeded)
	}
	ctx, cancel = context.WithCancel(p.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := long.Receive(ctx, 1); !errors.Is(err, context.Canceled) {
		p.Fatalf("error %v, want %v", err, context.Canceled)
	}
}

// reject sends plaintext to a receiver that rejects it, and shows it something that only
// looks sealed, and a copy of a message that it has handled. A sender's key has expired.
func (p *program) reject() {
	ctx := p.Context()
	strict, err := p.client.Receiver(ctx, name, &queue.ReceiverOptions{
		Wait: time.Millisecond, Crypto: &queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true},
	})
	p.must(err)
	plain, err := p.client.Sender(ctx, name, &queue.SenderOptions{Crypto: &queue.CryptoConfig{Loosen: true}})
	p.must(err)
	_, err = plain.Send(ctx, &queue.Message{Body: []byte("plain")})
	p.must(err)
	p.rejected(strict, queue.ErrUnencryptedMessage)
	attacker := p.broker.Attacker()
	put := func(m ...driver.Message) {
		p.Helper()
		p.must(attacker.Rewrite(ctx, name, func([]driver.Message) []driver.Message { return m }))
	}
	put(driver.Message{ID: "bad", Body: []byte("QRE1\x01nonsense")})
	p.rejected(strict, queue.ErrInvalidEnvelope)
	p.send(&queue.Message{Body: []byte("x")})
	copied, err := attacker.Read(ctx, name)
	p.must(err)
	d, err := strict.ReceiveOne(ctx)
	p.must(err)
	p.must(d.Complete(ctx))
	// Another message, so that the store keeps the number of the first and not its tag.
	p.send(&queue.Message{Body: []byte("y")})
	d, err = strict.ReceiveOne(ctx)
	p.must(err)
	p.must(d.Complete(ctx))
	put(copied[0])
	p.rejected(strict, queue.ErrNonceReused)
	key, err := keys.Generate("k0", &keys.Options{Created: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour)})
	p.must(err)
	expired, err := keys.NewRing(key)
	p.must(err)
	late, err := p.client.Sender(ctx, name, &queue.SenderOptions{Keys: expired})
	p.must(err)
	if _, err := late.Send(ctx, &queue.Message{Body: []byte("x")}); !errors.Is(err, queue.ErrEncryptionFailed) {
		p.Fatalf("error %v, want %v", err, queue.ErrEncryptionFailed)
	}
}

func (p *program) rejected(r *queue.Receiver, want error) {
	p.Helper()
	if _, err := r.ReceiveOne(p.Context()); !errors.Is(err, want) {
		p.Fatalf("error %v, want %v", err, want)
	}
}

// tell tells by hand of what would need a lost answer, or hours.
func (p *program) tell() {
	ctx, s := p.Context(), observe.Source{Queue: name, Environment: "production"}
	p.observer.Duplicate(ctx, s, observe.Duplicate{})
	for _, reason := range []string{
		driver.ReasonKeyNotFound, driver.ReasonKeyProvider, driver.ReasonReplayStore, driver.ReasonMessageExpired,
		driver.ReasonMessageFromFuture, driver.ReasonNonceBusy, driver.ReasonUnsupportedVersion, driver.ReasonCollision, driver.ReasonAccounting,
	} {
		p.observer.CryptoError(ctx, s, observe.CryptoError{Reason: reason})
	}
	p.observer.Flood(ctx, s, observe.Flood{Reason: driver.ReasonInvalidEnvelope, Count: 20})
	p.observer.Configured(ctx, s, observe.Configured{Role: observe.Receiver, Encrypted: true})
	p.observer.Accounted(ctx, s, observe.Accounted{Late: 1, Missing: 1, Full: 0.5, Accounting: true})
	for _, reason := range []string{driver.ReasonKeyProvider, driver.ReasonReplayStore} {
		p.observer.Paused(ctx, s, observe.Paused{Reason: reason})
		p.observer.Resumed(ctx, s, observe.Resumed{Reason: reason})
	}
}

// attack injects plaintext and alters a message, which pauses the receiver.
func (p *program) attack(r *queue.Receiver) {
	p.send(&queue.Message{Body: []byte("x")})
	p.must(p.broker.Attacker().Rewrite(p.Context(), name, func(m []driver.Message) []driver.Message {
		m[0].Body[len(m[0].Body)-1] ^= 1
		return append([]driver.Message{{ID: "p", Body: []byte("plain")}}, m...)
	}))
	d, err := r.ReceiveOne(p.Context())
	p.must(err)
	p.must(d.Complete(p.Context()))
	if _, err := r.ReceiveOne(p.Context()); !errors.Is(err, queue.ErrAuthenticationFailed) {
		p.Fatalf("error %v, want %v", err, queue.ErrAuthenticationFailed)
	}
}

// What the predecessor of this library reported is reported under the same names. Two
// labels have other names, each the one word for its thing: error_type of
// queue_crypto_errors_total is reason, outcome of the processing time disposition.
func TestOriginalNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"queue_messages_sent_total":                        {"encrypted", "queue"},
		"queue_messages_received_total":                    {"encrypted", "queue"},
		"queue_crypto_errors_total":                        {"queue", "reason"},
		"queue_crypto_enabled":                             {"environment", "queue"},
		"queue_crypto_encrypt_duration_seconds_count":      {"queue"},
		"queue_crypto_decrypt_duration_seconds_count":      {"queue"},
		"queue_crypto_key_created_timestamp":               {"key_id", "queue"},
		"queue_send_duration_seconds_count":                {"queue"},
		"queue_receive_duration_seconds_count":             {"queue"},
		"queue_message_processing_duration_seconds_count":  {"disposition", "queue"},
		"queue_messages_dead_lettered_total":               {"queue", "reason"},
		"queue_active_sessions":                            {"queue"},
		"queue_depth":                                      {"queue", "state"},
		"queue_processing_messages":                        {"queue"},
		"queue_crypto_encrypt_duration_seconds_bucket":     {"le", "queue"},
		"queue_message_processing_duration_seconds_bucket": {"disposition", "le", "queue"},
	} {
		got, ok := scraped(t)[name]
		if !ok {
			t.Errorf("the scrape has no %s", name)
			continue
		}
		if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
			t.Errorf("%s has the labels %q, want %q", name, names, want)
		}
	}
}
