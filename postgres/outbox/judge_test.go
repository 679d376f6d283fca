package outbox

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
)

// TestAfterSending has a row for each kind of answer.
func TestAfterSending(t *testing.T) {
	retry := backoff.Fixed(7 * time.Second)
	kind := func(k driver.Kind) error { return &driver.Error{Kind: k} }
	refused := dead(ReasonRefused, "the broker does not carry this message as it is")
	away := verdict{kind: driver.Release, outage: true}
	for _, c := range []struct {
		what         string
		err          error
		count, limit int
		want         verdict
	}{
		{"confirmed", nil, 1, 10, verdict{kind: driver.Complete}},
		{"confirmed at the last attempt", nil, 10, 10, verdict{kind: driver.Complete}},
		{"behind a message that failed", kind(driver.NotSent), 1, 10, verdict{kind: driver.Release}},
		{"too large", driver.NewTooLarge("body", 2, 1), 1, 10, refused},
		{"invalid", kind(driver.Invalid), 1, 10, refused},
		{"a feature that the broker lacks", driver.Unsupported("a schedule"), 1, 10, refused},
		{"unavailable", kind(driver.Unavailable), 10, 10, away},
		{"throttled", kind(driver.Throttled), 1, 10, away},
		{"full", kind(driver.Full), 1, 10, away},
		{"no such queue", kind(driver.NotFound), 1, 10, away},
		{"no permission", kind(driver.Permission), 1, 10, away},
		{"closed", kind(driver.Closed), 1, 10, away},
		{"no answer in time", fmt.Errorf("send: %w", context.DeadlineExceeded), 1, 10, away},
		{"an unknown error", errors.New("what"), 1, 10, verdict{kind: driver.Abandon, delay: 7 * time.Second}},
		{"an unknown error at the last attempt", errors.New("what"), 10, 10, dead(driver.ReasonMaxDeliveries, "the broker refused the message at each attempt")},
		{"an unknown error and no limit", errors.New("what"), 10, 0, verdict{kind: driver.Abandon, delay: 7 * time.Second}},
	} {
		if got := afterSending(c.err, c.count, c.limit, retry); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
	if v := afterSending(errors.New("what"), 1, 10, backoff.Never{}); v.delay != 0 {
		t.Errorf("a policy that never retries: a delay of %s", v.delay)
	}
}

// sealedAt is an envelope with a header of that time. Its ciphertext means nothing.
func sealedAt(t *testing.T, encrypted, notBefore, expires int64) []byte {
	t.Helper()
	h := envelope.Header{EncryptedAt: encrypted, NotBefore: notBefore, ExpiresAt: expires, KeyID: "k", Origin: "orders", Sequence: 1}
	h.Stream[0] = 1
	b, err := h.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	return append(b, make([]byte, envelope.NonceSize+envelope.TagSize+4)...)
}

// TestBeforeSending has a row for each thing that the outbox may hold.
func TestBeforeSending(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	ms := func(d time.Duration) int64 { return now.Add(d).UnixMilli() }
	good := sealedAt(t, ms(-time.Minute), 0, 0)
	unknown := append([]byte(nil), good...)
	unknown[4] = 9
	for _, c := range []struct {
		what   string
		body   []byte
		broken bool
		maxAge time.Duration
		want   string // reason; empty to send
	}{
		{"sealed a minute ago", good, false, time.Hour, ""},
		{"no limit", sealedAt(t, ms(-999*time.Hour), 0, 0), false, 0, ""},
		{"as old as the limit", good, false, time.Minute, driver.ReasonMessageExpired},
		{"younger by a millisecond", good, false, time.Minute + time.Millisecond, ""},
		{"due just now", sealedAt(t, ms(-time.Hour), ms(0), 0), false, time.Minute, ""},
		{"past its own expiry", sealedAt(t, ms(-time.Hour), 0, ms(0)), false, 0, driver.ReasonMessageExpired},
		{"before its own expiry", sealedAt(t, ms(-time.Hour), 0, ms(1*time.Millisecond)), false, 0, ""},
		{"plaintext", []byte("hello"), false, 0, driver.ReasonPlaintext},
		{"nothing", nil, false, 0, driver.ReasonPlaintext},
		{"an unknown version", unknown, false, 0, driver.ReasonUnsupportedVersion},
		{"cut off", good[:60], false, 0, driver.ReasonInvalidEnvelope},
		{"an altered row", good, true, 0, driver.ReasonUndecodable},
	} {
		d := &driver.Delivery{Message: driver.Message{Body: c.body, Sealed: true}, Undecodable: c.broken}
		_, v, ok := beforeSending(d, now, c.maxAge)
		if ok != (c.want == "") || v.reason != c.want || !ok && v.kind != driver.MoveToDeadLetter {
			t.Errorf("%s: %+v, send %t; want the reason %q", c.what, v, ok, c.want)
		}
	}
}
