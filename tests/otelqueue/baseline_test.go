package otelqueue_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
)

// lines fails for each line that the scrape lacks.
func (x *program) lines(want ...string) {
	x.Helper()
	text := "\n" + x.scrape()
	for _, w := range want {
		if !strings.Contains(text, "\n"+w+"\n") {
			x.Errorf("the scrape lacks %s", w)
		}
	}
	if x.Failed() {
		x.Log(text)
	}
}

// tamper alters the bodies that wait in a queue.
func (x *program) tamper(queue string) {
	x.Helper()
	x.must(x.broker.Attacker().Rewrite(x.Context(), queue, func(m []driver.Message) []driver.Message {
		for i := range m {
			m[i].Body[len(m[i].Body)-1] ^= 1
		}
		return m
	}))
}

// TestNoSeriesForWhatHasNotHappened: a queue that was opened has one series, and one
// message adds those of what it did. Zeros for each queue would reach the SDK's limit
// of 2,000 series at the 155th queue, and later ones would be invisible to alerts.
func TestNoSeriesForWhatHasNotHappened(t *testing.T) {
	x := observed(t, nil)
	s, r := x.open()
	if got, want := x.series(), []string{`queue_crypto_enabled{environment="production",queue="orders"}`}; !slices.Equal(got, want) {
		t.Errorf("series of a queue that was opened: %q, want %q", got, want)
	}
	_, err := s.Send(t.Context(), &queue.Message{Body: []byte("x")})
	x.must(err)
	d, err := r.ReceiveOne(t.Context())
	x.must(err)
	x.must(d.Complete(t.Context()))
	want := []string{
		`queue_crypto_decrypt_duration_seconds_count{queue="orders"}`,
		`queue_crypto_enabled{environment="production",queue="orders"}`,
		`queue_crypto_encrypt_duration_seconds_count{queue="orders"}`,
		`queue_crypto_key_created_timestamp{key_id="k1",queue="orders"}`,
		`queue_crypto_key_expires_timestamp{key_id="k1",queue="orders"}`,
		`queue_crypto_key_uses_total{key_id="k1",operation="open",queue="orders"}`,
		`queue_crypto_key_uses_total{key_id="k1",operation="seal",queue="orders"}`,
		`queue_messages_received_total{encrypted="true",queue="orders"}`,
		`queue_messages_sent_total{encrypted="true",queue="orders"}`,
		`queue_receive_duration_seconds_count{queue="orders"}`,
		`queue_send_duration_seconds_count{queue="orders"}`,
		`queue_settle_duration_seconds_count{disposition="completed",queue="orders"}`,
	}
	if got := x.series(); !slices.Equal(got, want) {
		t.Errorf("series of a queue with one message:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// series returns the series of the scrape without their values; of a histogram only
// its count. It leaves out queue_replay_store_full, which begins when a look at the store
// has ended that runs beside what the test does.
func (x *program) series() []string {
	x.Helper()
	var all []string
	for line := range strings.Lines(x.scrape()) {
		name, _, _ := strings.Cut(line, " ")
		if strings.HasPrefix(line, "queue_") && !strings.Contains(name, "_bucket{") && !strings.Contains(name, "_sum{") && !strings.HasPrefix(name, "queue_replay_store_full{") {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// TestManyQueues: with a queue for each of 400 customers, every queue has series of its
// own, and a forgery in the last one is counted under its name.
func TestManyQueues(t *testing.T) {
	x := observed(t, nil)
	const queues = 400
	last := fmt.Sprintf("customer-%03d", queues-1)
	for i := range queues {
		name := fmt.Sprintf("customer-%03d", i)
		s, err := x.client.Sender(t.Context(), name, nil)
		x.must(err)
		r, err := x.client.Receiver(t.Context(), name, &queue.ReceiverOptions{Wait: time.Millisecond})
		x.must(err)
		_, err = s.Send(t.Context(), &queue.Message{Body: []byte("x")})
		x.must(err)
		if name != last {
			d, err := r.ReceiveOne(t.Context())
			x.must(err)
			x.must(d.Complete(t.Context()))
			continue
		}
		x.tamper(last)
		if _, err := r.ReceiveOne(t.Context()); !errors.Is(err, queue.ErrAuthenticationFailed) {
			t.Fatalf("error %v, want %v", err, queue.ErrAuthenticationFailed)
		}
	}
	text := x.scrape()
	if strings.Contains(text, "otel_metric_overflow") {
		t.Error("queues are in the overflow series")
	}
	if want := `queue_crypto_errors_total{queue="` + last + `",reason="authentication_failed"} 1` + "\n"; !strings.Contains(text, want) {
		t.Errorf("the scrape lacks %s", want)
	}
	if got := strings.Count(text, "\nqueue_messages_sent_total{"); got != queues {
		t.Errorf("%d queues have a counter of sent messages, want %d", got, queues)
	}
}

// TestOverflowIsVisible: what is beyond the SDK's limit has the label that the alert
// QueueMetricsOverflow asks for.
func TestOverflowIsVisible(t *testing.T) {
	x := observed(t, nil)
	for i := range 2001 {
		x.observer.CryptoError(t.Context(), source(fmt.Sprint("q", i), uint64(i)), observe.CryptoError{Reason: "nonce_reused"})
		x.observer.Sent(t.Context(), source(fmt.Sprint("q", i), uint64(i)), observe.Sent{})
	}
	for _, name := range []string{"queue_crypto_errors_total", "queue_messages_sent_total"} {
		if want := name + `{otel_metric_overflow="true"} 2` + "\n"; !strings.Contains(x.scrape(), want) {
			t.Errorf("the scrape lacks %s", want)
		}
	}
}

// source is that of one sender or receiver in production.
func source(queue string, id uint64) observe.Source {
	return observe.Source{Queue: queue, Environment: "production", ID: id}
}

// absent fails for each line that the scrape has, or that begins one.
func (x *program) absent(prefixes ...string) {
	x.Helper()
	text := "\n" + x.scrape()
	for _, p := range prefixes {
		if strings.Contains(text, "\n"+p) {
			x.Errorf("the scrape has %s", p)
		}
	}
}

// TestEnabledIsOfBothSides: a queue is encrypted if every open sender and receiver has
// encryption enabled, in any order of opening.
func TestEnabledIsOfBothSides(t *testing.T) {
	x := observed(t, nil)
	const enabled, disabled = `queue_crypto_enabled{environment="production",queue="orders"} 1`, `queue_crypto_enabled{environment="production",queue="orders"} 0`
	receiver, sender, plain := source("orders", 1), source("orders", 2), source("orders", 3)
	x.observer.Configured(t.Context(), receiver, observe.Configured{Role: observe.Receiver, Encrypted: true})
	x.observer.Configured(t.Context(), sender, observe.Configured{Role: observe.Sender, Encrypted: true})
	x.lines(enabled)
	x.observer.Configured(t.Context(), plain, observe.Configured{Role: observe.Sender})
	x.lines(disabled)
	x.observer.Configured(t.Context(), source("orders", 4), observe.Configured{Role: observe.Receiver, Encrypted: true})
	x.lines(disabled)
	x.observer.Closed(t.Context(), plain, observe.Closed{Role: observe.Sender})
	x.lines(enabled)
}

// TestGaugesEnd: a gauge tells of open senders and receivers and of running workers
// only. What was closed while it was paused, or while its breaker was open, would alert
// for ever; its replacement begins anew.
func TestGaugesEnd(t *testing.T) {
	x := observed(t, nil)
	ctx, o := t.Context(), x.observer
	sender, receiver, other := source("orders", 1), source("orders", 2), source("orders", 3)
	o.Configured(ctx, sender, observe.Configured{Role: observe.Sender, Encrypted: true})
	o.KeyUsed(ctx, sender, observe.KeyUsed{KeyID: "k0", Created: time.Unix(900, 0)})
	o.KeyUsed(ctx, sender, observe.KeyUsed{KeyID: "k1", Created: time.Unix(1000, 0), Expires: time.Unix(2000, 0)})
	o.Configured(ctx, receiver, observe.Configured{Role: observe.Receiver, Encrypted: true})
	o.Paused(ctx, receiver, observe.Paused{Reason: "authentication_failed"})
	o.Paused(ctx, receiver, observe.Paused{Reason: "key_provider_error"})
	o.Resumed(ctx, receiver, observe.Resumed{Reason: "key_provider_error"})
	o.Paused(ctx, other, observe.Paused{Reason: "replay_store_error"})
	o.Breaker(ctx, receiver, observe.Breaker{State: "open"})
	o.Breaker(ctx, other, observe.Breaker{State: "half_open"})
	x.lines(
		`queue_crypto_enabled{environment="production",queue="orders"} 1`,
		`queue_crypto_key_created_timestamp{key_id="k1",queue="orders"} 1000`,
		`queue_crypto_key_expires_timestamp{key_id="k1",queue="orders"} 2000`,
		`queue_receiving_paused{queue="orders",reason="authentication_failed"} 1`,
		`queue_receiving_paused{queue="orders",reason="key_provider_error"} 0`,
		`queue_receiving_paused{queue="orders",reason="replay_store_error"} 1`,
		`queue_breaker_state{queue="orders"} 2`,
	)
	x.absent(`queue_crypto_key_created_timestamp{key_id="k0"`)
	o.Closed(ctx, receiver, observe.Closed{Role: observe.Worker})
	x.lines(`queue_breaker_state{queue="orders"} 1`, `queue_receiving_paused{queue="orders",reason="authentication_failed"} 1`)
	o.Closed(ctx, receiver, observe.Closed{Role: observe.Receiver})
	x.lines(`queue_receiving_paused{queue="orders",reason="replay_store_error"} 1`)
	x.absent(`queue_receiving_paused{queue="orders",reason="authentication_failed"}`, `queue_receiving_paused{queue="orders",reason="key_provider_error"}`)
	o.Closed(ctx, other, observe.Closed{Role: observe.Worker})
	o.Closed(ctx, other, observe.Closed{Role: observe.Receiver})
	o.Closed(ctx, sender, observe.Closed{Role: observe.Sender})
	x.absent("queue_crypto_enabled", "queue_crypto_key", "queue_receiving_paused", "queue_breaker_state")
}

// TestLibraryReasons: every code that the library gives has its own series, however
// many the application has used.
func TestLibraryReasons(t *testing.T) {
	source, err := os.ReadFile("../../driver/disposition.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`(?m)^\tReason\w+\s+= "(\w+)"`).FindAllSubmatch(source, -1)
	if len(codes) < 15 {
		t.Fatalf("%d reasons found: the file has another form", len(codes))
	}
	x := observed(t, nil)
	ctx, s := t.Context(), observe.Source{Queue: "orders"}
	for i := range 101 {
		x.observer.DeadLettered(ctx, s, observe.DeadLettered{Reason: fmt.Sprint("code_", i)})
	}
	want := []string{`queue_messages_dead_lettered_total{queue="orders",reason="other"} 1`}
	for _, c := range codes {
		x.observer.DeadLettered(ctx, s, observe.DeadLettered{Reason: string(c[1])})
		want = append(want, `queue_messages_dead_lettered_total{queue="orders",reason="`+string(c[1])+`"} 1`)
	}
	x.lines(want...)
}

// An expired key ends sending, and a counter tells.
func TestSealingFailuresAreCounted(t *testing.T) {
	key, err := keys.Generate("k1", &keys.Options{Created: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	x := observed(t, func(o *queue.Options) { o.Keys = ring })
	s, _ := x.open()
	if _, err := s.Send(t.Context(), &queue.Message{Body: []byte("x")}); !errors.Is(err, queue.ErrEncryptionFailed) {
		t.Fatalf("error %v, want %v", err, queue.ErrEncryptionFailed)
	}
	x.lines(`queue_crypto_errors_total{queue="orders",reason="encryption_failed"} 1`)
}

// The key ID of what does not authenticate is whatever an attacker wrote: never a label.
func TestForgedKeyIDsAreNoLabels(t *testing.T) {
	x := observed(t, nil)
	s, r := x.open()
	_, err := s.Send(t.Context(), &queue.Message{Body: []byte("x")})
	x.must(err)
	x.tamper("orders")
	if _, err := r.ReceiveOne(t.Context()); !errors.Is(err, queue.ErrAuthenticationFailed) {
		t.Fatal(err)
	}
	x.lines(`queue_crypto_errors_total{queue="orders",reason="authentication_failed"} 1`,
		`queue_crypto_key_uses_total{key_id="k1",operation="seal",queue="orders"} 1`)
	if text := x.scrape(); strings.Contains(text, `operation="open"`) {
		t.Errorf("a message that does not authenticate counts as opened:\n%s", text)
	}
}

// A flood of messages that cannot be read raises one alarm a minute, whatever the receiver
// that sees it, and a few of them raise none.
func TestFloodIsCounted(t *testing.T) {
	x := observed(t, func(o *queue.Options) { o.Crypto.PlaintextPolicy = queue.Reject })
	_, r := x.open()
	flood := func(n int) {
		x.must(x.broker.Attacker().Rewrite(t.Context(), "orders", func([]driver.Message) []driver.Message {
			all := make([]driver.Message, n)
			for i := range all {
				all[i] = driver.Message{ID: fmt.Sprint(i), Body: []byte("QRE1\x01")}
			}
			return all
		}))
		if _, err := r.Receive(t.Context(), n); !errors.Is(err, queue.ErrNoMessage) {
			t.Fatalf("Receive = %v, want ErrNoMessage: all are rejected", err)
		}
	}
	flood(10)
	x.absent("queue_floods_total")
	flood(100)
	flood(100)
	x.lines(`queue_floods_total{queue="orders",reason="invalid_envelope"} 1`,
		`queue_crypto_errors_total{queue="orders",reason="invalid_envelope"} 210`)
}

// Operations that fail are counted by what failed.
func TestFailuresAreCounted(t *testing.T) {
	x := observed(t, nil)
	s, _ := x.open()
	x.must(x.broker.Close(t.Context()))
	if _, err := s.Send(t.Context(), &queue.Message{Body: []byte("x")}); !errors.Is(err, queue.ErrClosed) {
		t.Fatalf("error %v, want %v", err, queue.ErrClosed)
	}
	ctx, orders := t.Context(), observe.Source{Queue: "orders"}
	_, end := x.observer.Begin(ctx, orders, observe.Operation{Kind: observe.Settle, Disposition: driver.DeadLettered})
	end(observe.Result{Err: queue.ErrLockLost})
	x.observer.Renewed(ctx, orders, observe.Renewed{Err: queue.ErrThrottled})
	x.observer.Renewed(ctx, orders, observe.Renewed{})
	x.lines(
		`queue_operation_errors_total{error_type="closed",operation="send",queue="orders"} 1`,
		`queue_operation_errors_total{disposition="dead_lettered",error_type="lock_lost",operation="settle",queue="orders"} 1`,
		`queue_operation_errors_total{error_type="throttled",operation="renew",queue="orders"} 1`,
		`queue_lock_renewals_total{queue="orders",result="error"} 1`,
		`queue_lock_renewals_total{queue="orders",result="ok"} 1`,
	)
}
