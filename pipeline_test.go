package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

// withoutLimit lifts the pause, which a test of many forgeries would run into.
var withoutLimit = &queue.ReceiverOptions{Wait: time.Second, MaxAuthFailures: 1 << 30}

func fullMessage() *queue.Message {
	return &queue.Message{
		ID: "id-1", SessionID: "session-1", CorrelationID: "corr-1", ContentType: "application/json",
		Attributes: map[string]string{"event": "push", "repo": "acme/api"},
		Body:       []byte(`{"n":1}`),
	}
}

// Everything that an application sets arrives, and is legible on the broker but
// for the body.
func TestRoundTrip(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		sent := fullMessage()
		before := fmt.Sprintf("%+v", sent)
		s := x.Sender(orders)
		result, err := s.Send(x.Context(), sent)
		x.Must(err)
		if result.MessageID != "id-1" || !result.Encrypted || result.KeyID != "k1" || result.BrokerID == "" {
			x.Errorf("SendResult %+v, want message id-1, encrypted under k1, with a broker ID", result)
		}
		if after := fmt.Sprintf("%+v", sent); after != before {
			x.Errorf("Send changed the message to\n%s\nwant\n%s", after, before)
		}
		stored := x.Steal()
		if stored.ID != "id-1" || stored.SessionID != "session-1" || stored.CorrelationID != "corr-1" {
			x.Errorf("stored %+v: the broker needs its IDs in the clear", stored)
		}
		if bytes.Contains(stored.Body, sent.Body) {
			x.Error("the broker has the body")
		}
		d := x.One(x.Receiver(orders, nil))
		if d.ID != sent.ID || d.SessionID != sent.SessionID || d.CorrelationID != sent.CorrelationID ||
			d.ContentType != sent.ContentType || !maps.Equal(d.Attributes, sent.Attributes) || !bytes.Equal(d.Body, sent.Body) {
			x.Errorf("received %+v, want %+v", d.Message, sent)
		}
		if !d.Encrypted || d.KeyID != "k1" || d.Origin != orders || d.Queue != orders || d.Unauthenticated != nil || d.EncryptedAt.IsZero() {
			x.Errorf("received %+v, want encrypted under k1, queue and origin %s, a time, nothing unauthenticated", d.Received, orders)
		}
		x.Must(d.Complete(x.Context()))
		if err := d.Complete(x.Context()); !errors.Is(err, queue.ErrSettled) {
			x.Errorf("second Complete: %v, want ErrSettled", err)
		}
	})
}

// Every single bit of a stored message, envelope and metadata, is protected.
func TestEveryBit(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(fullMessage())
		original := x.Steal()
		r := x.Receiver(orders, withoutLimit)
		total := 0
		try := func(what string, m driver.Message) {
			total++
			x.Rewrite(orders, func([]driver.Message) []driver.Message { return []driver.Message{m} })
			d, err := r.ReceiveOne(x.Context())
			if err == nil {
				x.Fatalf("%s: delivered %q, want it rejected", what, d.Body)
			}
			var rejected *queue.RejectedError
			if !errors.As(err, &rejected) {
				x.Fatalf("%s: %v is no rejection", what, err)
			}
			// The marker aside, a bit may name another key or version, which is
			// found first; none may say that it opened.
			switch rejected.Reason {
			case "authentication_failed", "invalid_envelope", "unsupported_version", "key_not_found":
			default:
				x.Fatalf("%s: %s", what, rejected.Reason)
			}
		}
		for i := range len(original.Body) * 8 {
			m := original
			m.Body = bytes.Clone(original.Body)
			m.Body[i/8] ^= 1 << (i % 8)
			try(fmt.Sprintf("bit %d of the envelope", i), m)
		}
		flip := func(s string, i int) string {
			b := []byte(s)
			b[i/8] ^= 1 << (i % 8)
			return string(b)
		}
		for name, field := range map[string]func(*driver.Message) *string{
			"message ID":     func(m *driver.Message) *string { return &m.ID },
			"session ID":     func(m *driver.Message) *string { return &m.SessionID },
			"correlation ID": func(m *driver.Message) *string { return &m.CorrelationID },
			"content type":   func(m *driver.Message) *string { return &m.ContentType },
		} {
			for i := range len(*field(&original)) * 8 {
				m := original
				f := field(&m)
				*f = flip(*f, i)
				try(fmt.Sprintf("bit %d of the %s", i, name), m)
			}
		}
		for name, value := range original.Attributes {
			for i := range len(value) * 8 {
				m := original
				m.Attributes = maps.Clone(original.Attributes)
				m.Attributes[name] = flip(value, i)
				try(fmt.Sprintf("bit %d of attribute %s", i, name), m)
			}
			m := original
			m.Attributes = maps.Clone(original.Attributes)
			delete(m.Attributes, name)
			try("attribute "+name+" taken away", m)
		}
		if total < 8*len(original.Body) {
			x.Errorf("only %d attempts", total)
		}
		// What was never altered still opens.
		x.Rewrite(orders, func([]driver.Message) []driver.Message { return []driver.Message{original} })
		x.Must(x.One(r).Complete(x.Context()))
	})
}

func TestAttributeAddedOnTheWay(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(fullMessage())
		x.Rewrite(orders, func(m []driver.Message) []driver.Message {
			m[0].Attributes = maps.Clone(m[0].Attributes)
			m[0].Attributes["admin"] = "true"
			return m
		})
		d := x.One(x.Receiver(orders, nil))
		if _, ok := d.Attributes["admin"]; ok || d.Unauthenticated["admin"] != "true" || len(d.Unauthenticated) != 1 {
			x.Errorf("attributes %v, unauthenticated %v; want admin as the only unauthenticated one", d.Attributes, d.Unauthenticated)
		}
	})
}

func TestMovedToAnotherQueue(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(fullMessage())
		x.Receiver("billing", nil) // makes it
		x.Inject("billing", x.Steal())
		x.None(x.Receiver("billing", nil), queue.ErrAuthenticationFailed)
		accepting := &queue.ReceiverOptions{Wait: time.Second, Crypto: &queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true, AcceptedOrigins: []string{orders}}}
		x.Inject("billing", x.Steal())
		if d := x.One(x.Receiver("billing", accepting)); d.Origin != orders || d.Queue != "billing" {
			x.Errorf("origin %q, queue %q; want %s, billing", d.Origin, d.Queue, orders)
		}
	})
}

func TestPlaintextPolicies(t *testing.T) {
	for _, c := range []struct {
		policy    queue.PlaintextPolicy
		delivered bool
		level     string
	}{
		{queue.Allow, true, "WARN"},
		{queue.AllowWithAlert, true, "ERROR"},
		{queue.Reject, false, ""},
	} {
		t.Run(c.policy.String(), func(t *testing.T) {
			inBubble(t, func(_ *fixture, o *queue.Options) { o.Crypto.PlaintextPolicy = c.policy }, func(x *fixture) {
				x.inject2(orders, driver.Message{ID: "m", Body: []byte("forged")})
				r := x.Receiver(orders, nil)
				if !c.delivered {
					x.None(r, queue.ErrUnencryptedMessage)
					if got := x.DeadReasons(orders); !slices.Equal(got, []string{"plaintext_rejected"}) {
						x.Errorf("dead letters %v, want one, plaintext_rejected", got)
					}
					return
				}
				d := x.One(r)
				if d.Encrypted || d.KeyID != "" || d.Origin != "" {
					x.Errorf("%+v is marked as encrypted", d.Received)
				}
				want := `"level":"` + c.level + `","msg":"Message received WITHOUT encryption"`
				if !strings.Contains(x.Log.String(), want) {
					x.Errorf("the log lacks %s:\n%s", want, x.Log)
				}
			})
		})
	}
}

// inject2 is inject into a queue that need not exist yet.
func (x *fixture) inject2(name string, m driver.Message) {
	x.Helper()
	x.Receiver(name, nil)
	x.Inject(name, m)
}

func TestSenderWithoutEncryption(t *testing.T) {
	off := func(_ *fixture, o *queue.Options) {
		o.Crypto = queue.CryptoConfig{}
		o.Environment = "production"
	}
	inBubble(t, off, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("plain")})
		if got := string(x.Steal().Body); got != "plain" {
			x.Errorf("stored %q, want it plain", got)
		}
		for _, want := range []string{`"level":"WARN","msg":"Message sent WITHOUT encryption"`, "DISABLED in production"} {
			if !strings.Contains(x.Log.String(), want) {
				x.Errorf("the log lacks %s:\n%s", want, x.Log)
			}
		}
		_, err := x.Sender(orders).Send(x.Context(), &queue.Message{Body: []byte("QRE1 is my favourite format")})
		if !errors.Is(err, queue.ErrMarkerCollision) {
			x.Errorf("Send = %v, want ErrMarkerCollision", err)
		}
		// A receiver with keys reads both kinds with no further configuration.
		r := x.Receiver(orders, nil)
		x.Must(x.One(r).Complete(x.Context()))
		x.Inject(orders, x.sealed("sealed", time.Now(), time.Time{}))
		if d := x.One(r); !d.Encrypted {
			x.Error("not encrypted")
		}
	})
}

func TestReceiverWithoutKeys(t *testing.T) {
	none := func(x *fixture, o *queue.Options) { o.Keys, o.ReplayStore, o.Crypto = nil, nil, queue.CryptoConfig{} }
	inBubble(t, none, func(x *fixture) {
		x.inject2(orders, x.sealed("m", time.Now(), time.Time{}))
		rejected := x.None(x.Receiver(orders, nil), queue.ErrKeyNotFound)
		if rejected.Disposition != driver.Abandoned || rejected.KeyID != "k1" {
			x.Errorf("%+v, want k1 abandoned", rejected)
		}
	})
}

// An unknown key is named, differs from an authentication failure, and is tried
// again over a horizon, because a rotation may not have arrived.
func TestKeyNotFound(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 9)))
		x.Must(x.Ring.SetCurrent("k2"))
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		bot := newRing(x.T, "k1")
		r := x.Receiver(orders, &queue.ReceiverOptions{Keys: bot, Wait: time.Second, MaxDeliveries: 10})
		rejected := x.None(r, queue.ErrKeyNotFound)
		var missing *queue.KeyNotFoundError
		if !errors.As(rejected, &missing) || missing.KeyID != "k2" || !strings.Contains(rejected.Error(), "k2") {
			x.Errorf("%v does not name the key", rejected)
		}
		if errors.Is(rejected, queue.ErrAuthenticationFailed) || rejected.Disposition != driver.Abandoned {
			x.Errorf("%v (%s), want it abandoned, and not as a forgery", rejected, rejected.Disposition)
		}
		begin := time.Now()
		for rejected.Disposition == driver.Abandoned {
			x.Wait(rejected.Delay)
			rejected = x.None(r, queue.ErrKeyNotFound)
		}
		if d := time.Since(begin); d < 14*time.Minute || rejected.Count != 10 {
			x.Errorf("dead-lettered after %s and %d deliveries, want 15 m and 10", d, rejected.Count)
		}
		if got := x.DeadReasons(orders); !slices.Equal(got, []string{"key_not_found"}) {
			x.Errorf("dead letters %v, want one, key_not_found", got)
		}
	})
}

// A rotation that reaches a receiver late loses nothing.
func TestLateRotation(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 9)))
		x.Must(x.Ring.SetCurrent("k2"))
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		bot := newRing(x.T, "k1")
		r := x.Receiver(orders, &queue.ReceiverOptions{Keys: bot, Wait: time.Second})
		rejected := x.None(r, queue.ErrKeyNotFound)
		x.Must(bot.Add(newKey(x.T, "k2", 9)))
		x.Wait(rejected.Delay)
		x.Must(x.One(r).Complete(x.Context()))
	})
}

// countingProvider counts the calls to a key provider, and fails while broken.
type countingProvider struct {
	keys.Provider
	calls  atomic.Int64
	broken atomic.Bool
}

func (p *countingProvider) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	p.calls.Add(1)
	if p.broken.Load() {
		return nil, fmt.Errorf("%w: connection refused", keys.ErrUnavailable)
	}
	return p.Provider.GetKey(ctx, id)
}

func (p *countingProvider) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	p.calls.Add(1)
	if p.broken.Load() {
		return nil, fmt.Errorf("%w: connection refused", keys.ErrUnavailable)
	}
	return p.Provider.ValidKeyIDs(ctx)
}

func TestFloodOfKeyIDs(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(fullMessage())
		original := x.Steal()
		p := &countingProvider{Provider: x.Ring}
		r := x.Receiver(orders, &queue.ReceiverOptions{Keys: p, Wait: time.Second})
		const flood = 10_000
		var all []driver.Message
		for i := range flood {
			m := original
			m.ID = fmt.Sprint("flood-", i)
			m.SessionID = ""
			m.Body = bytes.Replace(original.Body, []byte("\x02k1"), fmt.Appendf(nil, "\x08%08d", i), 1)
			all = append(all, m)
		}
		x.Rewrite(orders, func([]driver.Message) []driver.Message { return all })
		seen := 0
		for seen < flood {
			before := len(x.Rejected)
			x.Nothing(r.Receive(x.Context(), 100))
			if len(x.Rejected) == before {
				break
			}
			seen = len(x.Rejected)
		}
		if seen < flood || x.Rejected[0].Reason != "key_not_found" {
			x.Errorf("%d rejections, the first %s; want %d or more, key_not_found", seen, x.Rejected[0].Reason, flood)
		}
		if n := p.calls.Load(); n > 5 {
			x.Errorf("%d calls to the key provider for %d forged key IDs, want at most 5", n, flood)
		}
	})
}

// patient accepts messages of two hours.
func patient(_ *fixture, o *queue.Options) { o.Crypto.MaxMessageAge = 2 * time.Hour }

// A key provider that does not answer stops fetching: no delivery is spent, and
// nothing is dead-lettered.
func TestKeyProviderOutage(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		for range 5 {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		p := &countingProvider{Provider: x.Ring}
		p.broken.Store(true)
		r := x.Receiver(orders, &queue.ReceiverOptions{Keys: p, Wait: time.Second})
		x.Nothing(r.Receive(x.Context(), 10))
		if len(x.Rejected) != 5 || x.Rejected[0].Reason != "key_provider_error" || x.Rejected[0].Disposition != driver.Released {
			x.Fatalf("%d rejections, the first %+v; want 5, released for key_provider_error", len(x.Rejected), x.Rejected[0])
		}
		begin := time.Now()
		for time.Since(begin) < 10*time.Minute {
			ds, err := r.Receive(x.Context(), 10)
			x.Nothing(ds, err, queue.ErrKeyProvider)
		}
		if len(x.Rejected) != 5 {
			x.Errorf("%d deliveries were spent on the outage, want none", len(x.Rejected)-5)
		}
		if n := p.calls.Load(); n > 60 {
			x.Errorf("%d calls in ten minutes of outage, want at most 60", n)
		}
		p.broken.Store(false)
		got := 0
		for range 60 {
			ds, _ := r.Receive(x.Context(), 10)
			for _, d := range ds {
				x.Must(d.Complete(x.Context()))
				got++
			}
		}
		if got != 5 || len(x.DeadReasons(orders)) != 0 {
			x.Errorf("%d of 5 delivered afterwards, %d dead-lettered; want all and none", got, len(x.DeadReasons(orders)))
		}
	})
}

// One bad message costs the others of its batch nothing, and never stops a naive
// loop.
func TestBadMessageAmongGood(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for i := range 9 {
			x.Send(&queue.Message{ID: fmt.Sprint("m", i), Body: []byte("a")})
		}
		x.Rewrite(orders, func(m []driver.Message) []driver.Message {
			m[4].ID = "moved"
			return m
		})
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Prefetch: 3})
		ctx, cancel := context.WithTimeout(x.Context(), time.Minute)
		defer cancel()
		n := 0
		for d, err := range r.All(ctx) {
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					x.Error(err)
				}
				break
			}
			x.Must(d.Complete(ctx))
			n++
		}
		if n != 8 || len(x.Rejected) != 1 {
			x.Errorf("%d delivered, %d rejected; want 8, 1", n, len(x.Rejected))
		}
	})
}

// In a session a rejection that time can cure releases the session: nothing
// overtakes.
func TestSessionDoesNotOvertake(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		for i := range 3 {
			x.Send(&queue.Message{ID: fmt.Sprint("m", i), SessionID: "s", Body: []byte{byte(i)}})
		}
		x.Must(x.Ring.Add(newKey(x.T, "k2", 9)))
		x.Must(x.Ring.SetCurrent("k2"))
		x.Send(&queue.Message{ID: "m3", SessionID: "s", Body: []byte{3}})
		x.Must(x.Ring.SetCurrent("k1"))
		x.Send(&queue.Message{ID: "m4", SessionID: "s", Body: []byte{4}})

		bot := newRing(x.T, "k1")
		r := x.Receiver(orders, &queue.ReceiverOptions{Keys: bot, Wait: time.Second})
		s, err := r.NextSession(x.Context())
		x.Must(err)
		batch, err := s.Receive(x.Context(), 10)
		x.Must(err)
		if len(batch) != 3 {
			x.Fatalf("%d messages before the one that must wait, want 3", len(batch))
		}
		for _, d := range batch {
			x.Must(d.Complete(x.Context()))
		}
		_, err = s.Receive(x.Context(), 10)
		if !errors.Is(err, queue.ErrSessionLost) || !errors.Is(err, queue.ErrKeyNotFound) {
			x.Fatalf("Receive = %v, want ErrSessionLost for ErrKeyNotFound", err)
		}
		if s.Context().Err() == nil || !errors.Is(context.Cause(s.Context()), queue.ErrSessionLost) {
			x.Errorf("the session's context ended by %v, want ErrSessionLost", context.Cause(s.Context()))
		}
		x.Must(bot.Add(newKey(x.T, "k2", 9)))
		x.Wait(time.Minute)
		s, err = r.AcceptSession(x.Context(), "s")
		x.Must(err)
		var got []string
		for d, err := range s.All(x.Context()) {
			x.Must(err)
			got = append(got, d.ID)
			x.Must(d.Complete(x.Context()))
		}
		x.Must(s.Close(x.Context()))
		if !slices.Equal(got, []string{"m3", "m4"}) {
			x.Errorf("then %v, want m3, m4", got)
		}
	})
}

func TestStrict(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		o := queue.Strict(x.Ring, x.Store)
		o.Logger = quiet()
		c, err := queue.New(x.Broker, o)
		x.Must(err)
		_, err = c.Sender(x.Context(), orders, nil)
		x.Must(err)
		// memqueue keeps messages for ever unless told otherwise.
		_, err = c.Receiver(x.Context(), orders, nil)
		if !errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), "QueueRetention") {
			x.Errorf("Receiver = %v, want an error that names QueueRetention", err)
		}
		cfg := o.Crypto
		cfg.MaxMessageAge = time.Hour
		_, err = c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Crypto: &cfg})
		x.Must(err)
	})
}
