package otelqueue_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

// lines fails for each line that the scrape lacks.
func (x *observed) lines(want ...string) {
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

// tamper alters the bodies that wait.
func (x *observed) tamper() {
	x.Helper()
	x.must(x.broker.Attacker().Rewrite(x.Context(), "orders", func(m []driver.Message) []driver.Message {
		for i := range m {
			m[i].Body[len(m[i].Body)-1] ^= 1
		}
		return m
	}))
}

// What is counted begins at 0 and not at the first event, which an alert on an
// increase would not see.
func TestCountersBeginAtZero(t *testing.T) {
	x := observe(t, nil)
	x.open()
	want := []string{
		`queue_messages_sent_total{encrypted="false",queue="orders"} 0`,
		`queue_messages_sent_total{encrypted="true",queue="orders"} 0`,
		`queue_messages_received_total{encrypted="false",queue="orders"} 0`,
		`queue_messages_received_total{encrypted="true",queue="orders"} 0`,
		`queue_messages_duplicate_total{queue="orders"} 0`,
		`queue_messages_rejected_total{disposition="abandoned",queue="orders"} 0`,
		`queue_messages_rejected_total{disposition="dead_lettered",queue="orders"} 0`,
		`queue_receiving_paused{queue="orders",reason="authentication_failed"} 0`,
		`queue_receiving_paused{queue="orders",reason="key_provider_error"} 0`,
		`queue_receiving_paused{queue="orders",reason="replay_store_error"} 0`,
	}
	// The codes of the receive pipeline's table.
	for _, code := range []string{
		"authentication_failed", "encryption_failed", "invalid_envelope", "key_not_found", "key_provider_error", "message_expired",
		"message_from_future", "nonce_busy", "nonce_reused", "replay_store_error", "plaintext_allowed", "plaintext_rejected", "unsupported_version",
	} {
		want = append(want, `queue_crypto_errors_total{error_type="`+code+`",queue="orders"} 0`)
	}
	for _, code := range []string{
		"authentication_failed", "invalid_envelope", "key_not_found", "max_deliveries", "message_expired",
		"nonce_reused", "plaintext_rejected", "unsupported_version",
	} {
		want = append(want, `queue_messages_dead_lettered_total{queue="orders",reason="`+code+`"} 0`)
	}
	x.lines(want...)
	if n := strings.Count(x.scrape(), "queue_crypto_errors_total{"); n != 13 {
		t.Errorf("%d series of errors, want 13", n)
	}
}

// A queue whose receivers have encryption enabled and whose senders have not is
// not encrypted, whichever opened last; a sender that opens anew counts as it is now.
func TestEnabledIsOfBothSides(t *testing.T) {
	x := observe(t, nil)
	plain := &queue.SenderOptions{Crypto: &queue.CryptoConfig{}}
	const enabled, disabled = `queue_crypto_enabled{environment="production",queue="orders"} 1`, `queue_crypto_enabled{environment="production",queue="orders"} 0`
	x.open()
	x.lines(enabled)
	_, err := x.client.Sender(t.Context(), "orders", plain)
	x.must(err)
	x.lines(disabled)
	_, err = x.client.Receiver(t.Context(), "orders", nil)
	x.must(err)
	x.lines(disabled)
	_, err = x.client.Sender(t.Context(), "orders", nil)
	x.must(err)
	x.lines(enabled)
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
	x := observe(t, func(o *queue.Options) { o.Keys = ring })
	s, _ := x.open()
	if _, err := s.Send(t.Context(), &queue.Message{Body: []byte("x")}); !errors.Is(err, queue.ErrEncryptionFailed) {
		t.Fatalf("error %v, want %v", err, queue.ErrEncryptionFailed)
	}
	x.lines(`queue_crypto_errors_total{error_type="encryption_failed",queue="orders"} 1`)
}

// The key ID of what does not authenticate is whatever an attacker wrote: never a label.
func TestForgedKeyIDsAreNoLabels(t *testing.T) {
	x := observe(t, nil)
	s, r := x.open()
	_, err := s.Send(t.Context(), &queue.Message{Body: []byte("x")})
	x.must(err)
	x.tamper()
	if _, err := r.ReceiveOne(t.Context()); !errors.Is(err, queue.ErrAuthenticationFailed) {
		t.Fatal(err)
	}
	x.lines(`queue_crypto_errors_total{error_type="authentication_failed",queue="orders"} 1`,
		`queue_crypto_key_uses_total{key_id="k1",operation="seal",queue="orders"} 1`)
	if text := x.scrape(); strings.Contains(text, `operation="open"`) {
		t.Errorf("a message that does not authenticate counts as opened:\n%s", text)
	}
}

// Operations that fail are counted by what failed.
func TestFailuresAreCounted(t *testing.T) {
	x := observe(t, nil)
	s, _ := x.open()
	x.must(x.broker.Close(t.Context()))
	if _, err := s.Send(t.Context(), &queue.Message{Body: []byte("x")}); !errors.Is(err, queue.ErrClosed) {
		t.Fatalf("error %v, want %v", err, queue.ErrClosed)
	}
	x.lines(`queue_operation_errors_total{error_type="closed",operation="send",queue="orders"} 1`)
}
