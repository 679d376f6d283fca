package queue_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// Options that contradict each other are refused, and the error says what to set: a replay
// store that nothing uses protects from nothing, for one.
func TestContradictions(t *testing.T) {
	store, err := replay.NewMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	ring := newRing(t, "k1")
	aes, err := queue.NewAESGCM(ring)
	if err != nil {
		t.Fatal(err)
	}
	sealing := queue.CryptoConfig{Enabled: true}
	for name, c := range map[string]struct {
		o    queue.Options
		says string // empty: accepted
	}{
		"a store alone":             {queue.Options{ReplayStore: store, Keys: ring, Crypto: sealing}, "set TrackReplays"},
		"replays without a store":   {queue.Options{Keys: ring, Crypto: queue.CryptoConfig{TrackReplays: true}}, "Options.ReplayStore is nil"},
		"a store for replays":       {queue.Options{ReplayStore: store, Crypto: queue.CryptoConfig{TrackReplays: true}}, ""},
		"sealing without keys":      {queue.Options{Crypto: sealing}, "set Options.Keys or KeysFor"},
		"sealing under Keys":        {queue.Options{Keys: ring, Crypto: sealing}, ""},
		"sealing under KeysFor":     {queue.Options{KeysFor: func(string) keys.Provider { return ring }, Crypto: sealing}, ""},
		"sealing elsewhere":         {queue.Options{CryptoProvider: aes, Crypto: sealing}, ""},
		"a wrong duration":          {queue.Options{Crypto: queue.CryptoConfig{RetryWindow: -1}}, "RetryWindow is negative"},
		"replays of every age":      {queue.Options{ReplayStore: store, Crypto: queue.CryptoConfig{TrackReplays: true, InsecureSkipFreshness: true}}, "needs freshness"},
		"plaintext, and nothing":    {queue.Options{}, ""},
		"keys that nothing is for":  {queue.Options{Keys: ring}, ""},
		"neither store nor sealing": {queue.Options{Crypto: queue.CryptoConfig{PlaintextPolicy: queue.Reject}}, ""},
	} {
		_, err := queue.New(memqueue.New(nil), &c.o)
		if (c.says == "") != (err == nil) || err != nil && (!errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v; want %q", name, err, c.says)
		}
	}
}

// A configuration of one sender or receiver does not loosen the Client's by what it leaves
// out.
func TestConfigurationLoosensNothingByAccident(t *testing.T) {
	strict := func(_ *fixture, o *queue.Options) { o.Crypto.MaxMessageAge = time.Hour }
	inBubble(t, strict, func(x *fixture) {
		full := queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true, MaxMessageAge: time.Minute}
		for _, c := range []struct {
			name   string
			change func(*queue.CryptoConfig)
			says   string // empty: accepted
		}{
			{"as strict", func(*queue.CryptoConfig) {}, ""},
			{"another age", func(c *queue.CryptoConfig) { c.MaxMessageAge = 2 * time.Hour }, ""},
			{"one duration alone", func(c *queue.CryptoConfig) { *c = queue.CryptoConfig{MaxMessageAge: time.Hour} }, "PlaintextPolicy is allow"},
			{"plaintext", func(c *queue.CryptoConfig) { c.PlaintextPolicy = queue.AllowWithAlert }, "PlaintextPolicy"},
			{"replays", func(c *queue.CryptoConfig) { c.TrackReplays = false }, "TrackReplays"},
			{"freshness", func(c *queue.CryptoConfig) { c.TrackReplays, c.InsecureSkipFreshness = false, true }, "TrackReplays"},
			{"sealing", func(c *queue.CryptoConfig) { c.Enabled = false }, ""}, // receivers open in any case
		} {
			config := full
			c.change(&config)
			_, err := x.Client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Crypto: &config})
			if (c.says == "") != (err == nil) || err != nil && (!errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%s: %v; want %q", c.name, err, c.says)
			}
			config.Loosen = true
			if _, err := x.Client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Crypto: &config}); err != nil {
				t.Errorf("%s, with Loosen: %v", c.name, err)
			}
		}
		if _, err := x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Crypto: &queue.CryptoConfig{}}); !errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), "plaintext") {
			t.Errorf("a sender without Enabled: %v", err)
		}
		if _, err := x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Crypto: &queue.CryptoConfig{Enabled: true}}); err != nil {
			t.Errorf("a sender with Enabled: %v", err)
		}
		if _, err := x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Crypto: &queue.CryptoConfig{Loosen: true}}); err != nil {
			t.Errorf("a sender with Loosen: %v", err)
		}
	})
}

// A sender that could seal nothing does not open; one that has keys and seals nothing says
// so.
func TestSenderThatSealsNothing(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		none, err := keys.NewRing()
		x.Must(err)
		x.Must(none.Add(newKey(x.T, "k2", 2)))
		if _, err := x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Keys: none}); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("without a current key: %v", err)
		}
		past, err := keys.New("k3", make32(3), &keys.Options{Expires: time.Now().Add(-time.Hour)})
		x.Must(err)
		x.Must(none.Add(past))
		x.Must(none.SetCurrent("k3"))
		x.Log.Reset()
		if _, err := x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Keys: none}); err != nil || !strings.Contains(x.Log.String(), "The current key is expired") {
			t.Errorf("with an expired key: %v, log: %s", err, x.Log)
		}
		x.Log.Reset()
		_, err = x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Crypto: &queue.CryptoConfig{Loosen: true}})
		x.Must(err)
		if !strings.Contains(x.Log.String(), "has keys and sends plaintext") {
			t.Errorf("log: %s", x.Log)
		}
	})
}

func make32(fill byte) []byte {
	b := make([]byte, keys.Size)
	for i := range b {
		b[i] = fill
	}
	return b
}

// A program that only sends needs no replay store under the strict options, and gets no
// receiver that would track no replays.
func TestStrictSender(t *testing.T) {
	b := memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Retention: time.Hour}})
	o := queue.StrictSender(newRing(t, "k1"))
	o.Logger = quiet()
	c, err := queue.New(b, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context()) //nolint:errcheck // nothing is checked by it
	s, err := c.Sender(t.Context(), orders, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Send(t.Context(), &queue.Message{Body: []byte("x")}); err != nil || !r.Encrypted {
		t.Errorf("Send: %+v, %v", r, err)
	}
	if _, err := c.Receiver(t.Context(), orders, nil); !errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), "StrictSender") {
		t.Errorf("Receiver: %v", err)
	}
}

// A receiver that is to track replays does not open without a store, although the Client, which
// tracks none, has none: it would let every replay in.
func TestReceiverThatTracksNeedsAStore(t *testing.T) {
	inBubble(t, func(_ *fixture, o *queue.Options) { without(o) }, func(x *fixture) {
		track := &queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true}
		if _, err := x.Client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Crypto: track}); !errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), "Options.ReplayStore is nil") {
			x.Errorf("Receiver = %v, want that the store is missing", err)
		}
	})
}

// An endpoint whose Client is closed by the application's KeysFor while it opens says so, and
// asks nothing of the broker.
func TestClientThatClosesBesideOpen(t *testing.T) {
	for _, given := range []bool{true, false} { // keys, or none beside those of an AESGCM
		inBubble(t, nil, func(x *fixture) {
			aes, err := queue.NewAESGCM(x.Ring)
			x.Must(err)
			p := &failingBroker{}
			var c *queue.Client
			c = x.behind(p, func(o *queue.Options) {
				o.Keys, o.CryptoProvider = nil, aes
				o.KeysFor = func(string) keys.Provider {
					x.Must(c.Close(x.Context()))
					if given {
						return x.Ring
					}
					return nil
				}
			})
			if _, err := c.Receiver(x.Context(), orders, nil); !errors.Is(err, queue.ErrClosed) || p.count("open") > 0 {
				x.Errorf("keys %t: %v with %d queues opened; want ErrClosed and none", given, err, p.count("open"))
			}
		})
	}
}

// A caller that left opens no receiver: nothing would close it.
func TestReceiverOfACallerThatLeft(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		ctx, cancel := context.WithCancel(x.Context())
		p := &failingBroker{}
		c := x.behind(p, func(o *queue.Options) {
			o.Observer = observe.Func(func(_ context.Context, _ observe.Source, event any) {
				if _, ok := event.(observe.Configured); ok {
					cancel()
				}
			})
		})
		if r, err := c.Receiver(ctx, orders, nil); r != nil || !errors.Is(err, context.Canceled) || p.count("close") != 1 {
			x.Errorf("Receiver = %v, %v, and closed %d times; want %v, and once", r, err, p.count("close"), context.Canceled)
		}
	})
}
