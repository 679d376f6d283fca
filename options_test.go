package queue_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sessionkey"
)

const years50 = 50 * 365 * 24 * time.Hour

// TestReceiverOptionsAtTheirBounds: what is refused names its field, costs nothing at the broker
// beyond the open queue, which is closed again, and what is not has its defaults filled in.
func TestReceiverOptionsAtTheirBounds(t *testing.T) {
	for _, c := range []struct {
		field string // of the error; "" if it is accepted
		o     queue.ReceiverOptions
	}{
		{"Wait", queue.ReceiverOptions{Wait: -1}},
		{"Lock", queue.ReceiverOptions{Lock: -1}},
		{"RotationHorizon", queue.ReceiverOptions{RotationHorizon: -1}},
		{"MissingAfter", queue.ReceiverOptions{MissingAfter: -1}},
		{"Prefetch", queue.ReceiverOptions{Prefetch: -1}},
		{"MaxDeliveries", queue.ReceiverOptions{MaxDeliveries: -1}},
		{"MaxAuthFailures", queue.ReceiverOptions{MaxAuthFailures: -1}},
		{"Group", queue.ReceiverOptions{Group: strings.Repeat("g", replay.MaxGroup+1)}},
		{"", queue.ReceiverOptions{Group: strings.Repeat("g", replay.MaxGroup)}},
		{"RotationHorizon", queue.ReceiverOptions{Crypto: age(time.Hour), RotationHorizon: time.Hour + 1}},
		{"", queue.ReceiverOptions{Crypto: age(time.Hour), RotationHorizon: time.Hour}},
		{"RotationHorizon", queue.ReceiverOptions{Crypto: &queue.CryptoConfig{InsecureSkipFreshness: true, Loosen: true}, RotationHorizon: years50 + 1}},
		{"", queue.ReceiverOptions{Crypto: &queue.CryptoConfig{InsecureSkipFreshness: true, Loosen: true}, RotationHorizon: years50}},
	} {
		inBubble(t, nil, func(x *fixture) {
			p := &failingBroker{}
			r, err := x.behind(p, nil).Receiver(x.Context(), orders, &c.o)
			if c.field == "" {
				x.Must(err)
				return
			}
			x.failed(c.field, err, queue.ErrInvalidOptions, "open receiver")
			if r != nil || err == nil || !strings.Contains(err.Error(), c.field) || p.count("open") != p.count("close") {
				x.Errorf("%+v: %v, %v", c.o, err, p.counts())
			}
		})
	}
}

func age(d time.Duration) *queue.CryptoConfig {
	return &queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true, MaxMessageAge: d}
}

// TestReceiverDefaults has each option that is not set, and each that is.
func TestReceiverDefaults(t *testing.T) {
	deliveries := func(n int) func(*driver.Capabilities) {
		return func(c *driver.Capabilities) { c.MaxDeliveries = n }
	}
	for _, c := range []struct {
		name string
		caps func(*driver.Capabilities)
		o    queue.ReceiverOptions
		want queue.ReceiverOptions
	}{
		{"none", deliveries(0), queue.ReceiverOptions{Crypto: age(time.Hour)}, queue.ReceiverOptions{
			Group: orders, Wait: 20 * time.Second, Prefetch: 1, MaxDeliveries: 10, RotationHorizon: 15 * time.Minute, MissingAfter: time.Hour, MaxAuthFailures: 20,
		}},
		{"the queue's limit, a short life", deliveries(4), queue.ReceiverOptions{Crypto: age(time.Minute)}, queue.ReceiverOptions{
			Group: orders, Wait: 20 * time.Second, Prefetch: 1, MaxDeliveries: 4, RotationHorizon: time.Minute, MissingAfter: time.Hour, MaxAuthFailures: 20,
		}},
		{"a high limit of the queue", deliveries(50), queue.ReceiverOptions{Crypto: age(time.Hour)}, queue.ReceiverOptions{
			Group: orders, Wait: 20 * time.Second, Prefetch: 1, MaxDeliveries: 50, RotationHorizon: 15 * time.Minute, MissingAfter: time.Hour, MaxAuthFailures: 20,
		}},
		{"all", deliveries(9), queue.ReceiverOptions{
			Crypto: age(time.Hour), Group: "g", Wait: 1, Prefetch: 2, MaxDeliveries: 3, RotationHorizon: 4, MissingAfter: 5, MaxAuthFailures: 6,
		}, queue.ReceiverOptions{
			Group: "g", Wait: 1, Prefetch: 2, MaxDeliveries: 3, RotationHorizon: 4, MissingAfter: 5, MaxAuthFailures: 6,
		}},
		{"more deliveries than the queue has", deliveries(9), queue.ReceiverOptions{Crypto: age(time.Hour), MaxDeliveries: 12}, queue.ReceiverOptions{
			Group: orders, Wait: 20 * time.Second, Prefetch: 1, MaxDeliveries: 9, RotationHorizon: 15 * time.Minute, MissingAfter: time.Hour, MaxAuthFailures: 20,
		}},
	} {
		inBubble(t, nil, func(x *fixture) {
			got := x.receives(x.behind(&failingBroker{caps: c.caps}, nil), &c.o).Options()
			if got.Group != c.want.Group || got.Wait != c.want.Wait || got.Prefetch != c.want.Prefetch || got.MaxDeliveries != c.want.MaxDeliveries ||
				got.RotationHorizon != c.want.RotationHorizon || got.MissingAfter != c.want.MissingAfter || got.MaxAuthFailures != c.want.MaxAuthFailures {
				x.Errorf("%s: %+v, want %+v", c.name, got, c.want)
			}
		})
	}
}

// TestOptionsAreCopied: what a program does to its lists after a call changes nothing.
func TestOptionsAreCopied(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		accepted, versions := []string{"a"}, []uint8{1, 2}
		o := &queue.Options{
			Keys: x.Ring, ReplayStore: x.Store, Logger: x.Logger,
			Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true, AcceptedOrigins: accepted, AcceptedVersions: versions},
		}
		c, err := queue.New(x.Broker.Connect(), o)
		x.Must(err)
		accepted[0], versions[0] = "changed", 9
		check := func(what string) {
			x.Helper()
			got := c.Options().Crypto
			if !slices.Equal(got.AcceptedOrigins, []string{"a"}) || !slices.Equal(got.AcceptedVersions, []uint8{1, 2}) {
				x.Errorf("%s: %v, %v", what, got.AcceptedOrigins, got.AcceptedVersions)
			}
		}
		check("the program's lists changed")
		got := c.Options().Crypto
		got.AcceptedOrigins[0], got.AcceptedVersions[0] = "changed", 9
		check("the lists that Options returned changed")

		// Of a receiver: it still accepts the origin, the version and the sender.
		origins, senders, versions := []string{"old"}, []string{""}, []uint8{1, 2}
		crypto := &queue.CryptoConfig{Enabled: true, TrackReplays: true, AcceptedOrigins: origins, AcceptedVersions: versions}
		r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second, Crypto: crypto, Senders: senders})
		x.Must(err)
		origins[0], senders[0], versions[1] = "changed", "changed", 9
		_, err = x.Sender("old").Send(x.Context(), &queue.Message{Body: []byte("a")})
		x.Must(err)
		x.Sender(orders)
		x.Send(&queue.Message{ID: "first", Body: []byte("a")})
		x.Must(x.One(r).Complete(x.Context()))
		x.Inject(orders, x.Stored("old")[0])
		x.Must(x.One(r).Complete(x.Context()))
		x.Inject(orders, driver.Message{ID: "of version 2", Body: []byte("QRE1\x02")})
		if got := x.None(r, queue.ErrUnsupportedVersion).Disposition; got != driver.Abandoned {
			x.Errorf("a message of a version to come is %s, want abandoned", got)
		}
	})
}

// TestClientDefaults: a Client without options has a logger and no keys; without a broker there
// is none.
func TestClientDefaults(t *testing.T) {
	if c, err := queue.New(nil, nil); c != nil || !errors.Is(err, queue.ErrInvalidOptions) {
		t.Errorf("New without a broker = %v, %v", c, err)
	}
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{Broker: x.Broker.Connect(), fails: map[string]error{"close broker": errFailing}}
		c, err := queue.New(p, nil)
		x.Must(err)
		o := c.Options()
		if o.Logger == nil || o.KeysFor == nil || o.KeysFor(orders) != nil {
			x.Errorf("options %+v, want a Logger, and a KeysFor without keys", o)
		}
		x.failed("without a context", c.Close(noContext), queue.ErrInvalidOptions, "close")
		if c.Broker() != driver.Broker(p) {
			x.Error("Broker is another one")
		}
		x.failed("Close", c.Close(x.Context()), errFailing, "close")
		x.Must(c.Close(x.Context()))
		if p.count("close broker") != 1 {
			x.Errorf("the broker was closed %d times", p.count("close broker"))
		}
		_, err = c.Sender(x.Context(), orders, nil)
		x.failed("Sender of a closed Client", err, queue.ErrClosed, "open sender")
		_, err = c.Receiver(x.Context(), orders, nil)
		x.failed("Receiver of a closed Client", err, queue.ErrClosed, "open receiver")
		if p.count("open") != 0 {
			x.Error("a closed Client opens queues")
		}
		if x.Client.Options().KeysFor(orders) == nil {
			x.Error("the keys of a Client are not in its options")
		}
	})
}

// TestProductionWarns if encryption is off, and only then.
func TestProductionWarns(t *testing.T) {
	const line = "Message encryption is DISABLED in production"
	for _, c := range []struct {
		environment string
		enabled     bool
		want        int
	}{{"production", false, 1}, {"production", true, 0}, {"test", false, 0}} {
		inBubble(t, nil, func(x *fixture) {
			x.behind(&failingBroker{}, func(o *queue.Options) {
				without(o)
				o.Environment, o.Crypto.Enabled = c.environment, c.enabled
			})
			if n := x.logged(line); n != c.want {
				x.Errorf("%+v: %d lines", c, n)
			}
		})
	}
}

// TestCryptoConfigAtItsBounds has each check and each default.
func TestCryptoConfigAtItsBounds(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		c         queue.CryptoConfig
		retention time.Duration
		want      queue.CryptoConfig // ages only; zero if it is refused
	}{
		"zero":                              {queue.CryptoConfig{}, 0, queue.CryptoConfig{MaxMessageAge: 5 * time.Minute, MaxClockSkew: 30 * time.Second, RetryWindow: day}},
		"zero, the broker tells":            {queue.CryptoConfig{}, day, queue.CryptoConfig{MaxMessageAge: 5 * time.Minute, MaxClockSkew: 30 * time.Second, RetryWindow: day}},
		"replays":                           {queue.CryptoConfig{TrackReplays: true}, 0, queue.CryptoConfig{MaxMessageAge: 5 * time.Minute, MaxClockSkew: 30 * time.Second, RetryWindow: day}},
		"replays, the broker tells":         {queue.CryptoConfig{TrackReplays: true}, 2 * day, queue.CryptoConfig{MaxMessageAge: 2 * day, MaxClockSkew: 30 * time.Second, RetryWindow: day}},
		"retention":                         {queue.CryptoConfig{MaxMessageAge: queue.QueueRetention}, day, queue.CryptoConfig{MaxMessageAge: day, MaxClockSkew: 30 * time.Second, RetryWindow: day}},
		"retention that is too short":       {queue.CryptoConfig{MaxMessageAge: queue.QueueRetention}, 1, queue.CryptoConfig{MaxMessageAge: 5 * time.Minute, MaxClockSkew: 30 * time.Second, RetryWindow: day}},
		"retention that is too long":        {queue.CryptoConfig{MaxMessageAge: queue.QueueRetention}, 15 * day, queue.CryptoConfig{MaxMessageAge: 14 * day, MaxClockSkew: 30 * time.Second, RetryWindow: day}},
		"retention that is not told":        {queue.CryptoConfig{MaxMessageAge: queue.QueueRetention}, 0, queue.CryptoConfig{}},
		"retention below zero":              {queue.CryptoConfig{MaxMessageAge: queue.QueueRetention}, -1, queue.CryptoConfig{}},
		"all set":                           {queue.CryptoConfig{MaxMessageAge: 1, MaxClockSkew: 2, RetryWindow: 3}, day, queue.CryptoConfig{MaxMessageAge: 1, MaxClockSkew: 2, RetryWindow: 3}},
		"the longest":                       {queue.CryptoConfig{MaxMessageAge: years50, MaxClockSkew: years50, RetryWindow: years50}, 0, queue.CryptoConfig{MaxMessageAge: years50, MaxClockSkew: years50, RetryWindow: years50}},
		"a longer window":                   {queue.CryptoConfig{RetryWindow: years50 + 1}, 0, queue.CryptoConfig{MaxMessageAge: 5 * time.Minute, MaxClockSkew: 30 * time.Second, RetryWindow: years50}},
		"a longer age":                      {queue.CryptoConfig{MaxMessageAge: years50 + 1}, 0, queue.CryptoConfig{}},
		"a longer skew":                     {queue.CryptoConfig{MaxClockSkew: years50 + 1}, 0, queue.CryptoConfig{}},
		"a longer skew, with the retention": {queue.CryptoConfig{MaxMessageAge: queue.QueueRetention, MaxClockSkew: years50 + 1}, day, queue.CryptoConfig{}},
		"a negative skew, with it":          {queue.CryptoConfig{MaxMessageAge: queue.QueueRetention, MaxClockSkew: -1}, day, queue.CryptoConfig{}},
		"a longer skew, replays":            {queue.CryptoConfig{TrackReplays: true, MaxClockSkew: years50 + 1}, 0, queue.CryptoConfig{}},
		"a negative age":                    {queue.CryptoConfig{MaxMessageAge: -1}, 0, queue.CryptoConfig{}},
		"a negative skew":                   {queue.CryptoConfig{MaxClockSkew: -1}, 0, queue.CryptoConfig{}},
		"a negative window":                 {queue.CryptoConfig{RetryWindow: -1}, 0, queue.CryptoConfig{}},
		"an unknown policy":                 {queue.CryptoConfig{PlaintextPolicy: queue.Reject + 1}, 0, queue.CryptoConfig{}},
		"replays of any age":                {queue.CryptoConfig{TrackReplays: true, InsecureSkipFreshness: true}, 0, queue.CryptoConfig{}},
	} {
		got, err := c.c.Resolve(c.retention)
		if c.want.MaxMessageAge == 0 {
			if !errors.Is(err, queue.ErrInvalidOptions) {
				t.Errorf("%s: %+v, %v; want ErrInvalidOptions", name, got, err)
			}
			continue
		}
		if err != nil || got.MaxMessageAge != c.want.MaxMessageAge || got.MaxClockSkew != c.want.MaxClockSkew || got.RetryWindow != c.want.RetryWindow || !slices.Equal(got.AcceptedVersions, []uint8{envelope.Version1}) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	if got, err := (queue.CryptoConfig{AcceptedVersions: []uint8{7}}).Resolve(0); err != nil || !slices.Equal(got.AcceptedVersions, []uint8{7}) {
		t.Errorf("versions %v, %v", got.AcceptedVersions, err)
	}
	for p, want := range map[queue.PlaintextPolicy]string{queue.Allow: "allow", queue.AllowWithAlert: "allow_with_alert", queue.Reject: "reject", 9: "invalid"} {
		if p.String() != want {
			t.Errorf("policy %d is called %q", p, p)
		}
	}
}

// TestWrongCryptoCostsNoRequest: an endpoint whose Crypto is refused opens no queue.
func TestWrongCryptoCostsNoRequest(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{}
		c := x.behind(p, nil)
		wrong := age(time.Hour)
		wrong.MaxClockSkew = -1
		_, err := c.Sender(x.Context(), orders, &queue.SenderOptions{Crypto: wrong})
		x.failed("Sender", err, queue.ErrInvalidOptions, "open sender")
		_, err = c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Crypto: wrong})
		x.failed("Receiver", err, queue.ErrInvalidOptions, "open receiver")
		if p.count("open") != 0 {
			x.Errorf("%d requests to the broker", p.count("open"))
		}
	})
}

// TestSenderOptions: what a sender cannot do is refused, and the queue that was opened for it is
// closed again.
func TestSenderOptions(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		aes, err := queue.NewAESGCM(x.Ring)
		x.Must(err)
		foreign := struct{ queue.CryptoProvider }{aes}
		for name, c := range map[string]struct {
			change func(*queue.Options)
			o      *queue.SenderOptions
			want   error
		}{
			"padding":                           {nil, &queue.SenderOptions{Padding: envelope.Padme}, nil},
			"padding of a negative size":        {nil, &queue.SenderOptions{Padding: envelope.PadTo(-5)}, queue.ErrInvalidOptions},
			"padding, a foreign CryptoProvider": {func(o *queue.Options) { o.CryptoProvider = foreign }, &queue.SenderOptions{Padding: envelope.Padme}, queue.ErrInvalidOptions},
			"a foreign CryptoProvider":          {func(o *queue.Options) { o.CryptoProvider = foreign }, nil, nil},
			"a foreign CryptoProvider, no keys": {func(o *queue.Options) { o.CryptoProvider, o.Keys = foreign, nil }, nil, queue.ErrInvalidOptions},
			"padding, nothing is sealed":        {func(o *queue.Options) { without(o); o.Crypto.Enabled = false; o.Keys = nil }, &queue.SenderOptions{Padding: envelope.Padme}, nil},
			"no current key":                    {func(o *queue.Options) { o.Keys = newRing(x.T) }, nil, queue.ErrKeyNotFound},
			"keys that are away":                {func(o *queue.Options) { o.Keys = &halfKeys{Provider: x.Ring, current: errFailing} }, nil, nil},
			"a name that is no queue":           {nil, nil, queue.ErrInvalidOptions},
			"a strategy that cannot be":         {nil, &queue.SenderOptions{SessionKey: sessionkey.Composite{}}, queue.ErrInvalidOptions},
			"keys for another queue": {func(o *queue.Options) {
				o.Keys = nil
				o.CryptoProvider = nil
				o.KeysFor = func(string) keys.Provider { return nil }
			}, nil, queue.ErrInvalidOptions},
			"a broker that does not open queues": {nil, nil, errFailing},
		} {
			p := &failingBroker{}
			if c.want == errFailing {
				p.set(func() { p.fails = map[string]error{"open": errFailing} })
			}
			queueName := orders
			if name == "a name that is no queue" {
				queueName = ""
			}
			s, err := x.behind(p, c.change).Sender(x.Context(), queueName, c.o)
			if c.want == nil {
				x.Must(err)
				continue
			}
			if s != nil || !errors.Is(err, c.want) && !errors.Is(err, queue.ErrInvalidOptions) && queueName != "" {
				x.Errorf("%s: %v, want %v", name, err, c.want)
			}
			if c.want != errFailing && p.count("open") != p.count("close") {
				x.Errorf("%s: %v", name, p.counts())
			}
		}
	})
}

// expiring returns a key that expires then.
func expiring(t testing.TB, id keys.ID, at time.Time) *keys.Key {
	t.Helper()
	k, err := keys.New(id, bytes.Repeat([]byte{1}, keys.Size), &keys.Options{Expires: at})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestExpiredKeyIsLogged when a sender opens, and a key that expires later is not.
func TestExpiredKeyIsLogged(t *testing.T) {
	const line = "The current key is expired"
	for offset, want := range map[time.Duration]int{-time.Second: 1, time.Hour: 0} {
		inBubble(t, nil, func(x *fixture) {
			ring := newRing(x.T)
			x.Must(ring.Add(expiring(x.T, "k1", time.Now().Add(offset))))
			x.Must(ring.SetCurrent("k1"))
			_, err := x.behind(&failingBroker{}, func(o *queue.Options) { o.Keys = ring }).Sender(x.Context(), orders, nil)
			x.Must(err)
			if n := x.logged(line); n != want {
				x.Errorf("expires in %s: %d lines, want %d", offset, n, want)
			}
		})
	}
}

// TestBatcherOptionsAtTheirBounds: nothing may be negative, and what is not set has its default.
func TestBatcherOptionsAtTheirBounds(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		if _, err := queue.NewBatcher(nil, nil); !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("without a Sender: %v", err)
		}
		s := x.Sender(orders)
		for _, o := range []queue.BatcherOptions{
			{Linger: -1}, {MaxMessages: -1}, {MaxPending: -1}, {InFlight: -1}, {MaxAttempts: -1},
			{Breaker: backoff.BreakerOptions{Open: -1}}, {Breaker: backoff.BreakerOptions{FirstOpen: -1}},
		} {
			_, err := queue.NewBatcher(s, &o)
			x.failed("NewBatcher", err, queue.ErrInvalidOptions, "new batcher")
		}
		b, err := queue.NewBatcher(s, nil)
		x.Must(err)
		x.failed("Close", b.Close(noContext), queue.ErrInvalidOptions, "close")
		x.failed("Flush", b.Flush(noContext), queue.ErrInvalidOptions, "flush")
		x.failed("SendAsync", b.SendAsync(noContext, nil, nil), queue.ErrInvalidOptions, "send")
		x.failed("SendAsync", b.SendAsync(x.Context(), nil, nil), queue.ErrInvalidMessage, "send")
		x.Must(b.Flush(x.Context()))
		x.Must(b.Close(x.Context()))
		x.Must(b.Close(x.Context()))
		_, err = b.Send(x.Context(), &queue.Message{Body: []byte("a")})
		x.failed("Send", err, queue.ErrClosed, "send")
	})
}

// TestMessageAtItsBounds has each limit of a message, kept and passed by one.
func TestMessageAtItsBounds(t *testing.T) {
	long := strings.Repeat("x", queue.MaxIDBytes)
	many := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[strings.Repeat("a", i+1)] = "v"
		}
		return m
	}
	for name, c := range map[string]struct {
		m  queue.Message
		ok bool
	}{
		"longest IDs":            {queue.Message{ID: long, SessionID: long, CorrelationID: long, ContentType: long, DedupID: long}, true},
		"ID":                     {queue.Message{ID: long + "x"}, false},
		"SessionID":              {queue.Message{SessionID: long + "x"}, false},
		"CorrelationID":          {queue.Message{CorrelationID: long + "x"}, false},
		"ContentType":            {queue.Message{ContentType: long + "x"}, false},
		"DedupID":                {queue.Message{DedupID: long + "x"}, false},
		"no UTF-8":               {queue.Message{CorrelationID: "\xff"}, false},
		"64 attributes":          {queue.Message{Attributes: many(64)}, true},
		"65 attributes":          {queue.Message{Attributes: many(65)}, false},
		"an empty name":          {queue.Message{Attributes: map[string]string{"": "v"}}, false},
		"the longest name":       {queue.Message{Attributes: map[string]string{strings.Repeat("a", 255): "v"}}, true},
		"a longer name":          {queue.Message{Attributes: map[string]string{strings.Repeat("a", 256): "v"}}, false},
		"a name without UTF-8":   {queue.Message{Attributes: map[string]string{"\xff": "v"}}, false},
		"a value without UTF-8":  {queue.Message{Attributes: map[string]string{"a": "\xff"}}, false},
		"qrt-":                   {queue.Message{Attributes: map[string]string{"qrt-x": "v"}}, false},
		"traceparent":            {queue.Message{Attributes: map[string]string{"traceparent": "v"}}, false},
		"tracestate":             {queue.Message{Attributes: map[string]string{"tracestate": "v"}}, false},
		"a negative TTL":         {queue.Message{TTL: -1}, false},
		"the first NotBefore":    {queue.Message{NotBefore: time.UnixMilli(1)}, true},
		"an earlier NotBefore":   {queue.Message{NotBefore: time.UnixMilli(1).Add(-1)}, false},
		"the last NotBefore":     {queue.Message{NotBefore: time.UnixMilli(envelope.MaxTime)}, true},
		"a later NotBefore":      {queue.Message{NotBefore: time.UnixMilli(envelope.MaxTime).Add(1)}, false},
		"neither TTL nor a time": {queue.Message{}, true},
	} {
		for _, change := range []func(*queue.Options){nil, plaintext} {
			inBubble(t, nil, func(x *fixture) {
				s, err := x.behind(&failingBroker{}, change).Sender(x.Context(), orders, nil)
				x.Must(err)
				_, err = s.Send(x.Context(), &c.m)
				if c.ok {
					x.Must(err)
					return
				}
				x.failed(name, err, queue.ErrInvalidMessage, "send")
				if len(x.Stored(orders)) != 0 {
					x.Errorf("%s: it was sent", name)
				}
			})
		}
	}
}

// plaintext makes a client without keys.
func plaintext(o *queue.Options) {
	without(o)
	o.Keys, o.Crypto = nil, queue.CryptoConfig{}
}

// TestObserverOfAnEndpoint is told once of each end, and a Close without a context ends nothing.
func TestObserverOfAnEndpoint(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		l := &lifetimes{open: map[observe.Role]int{}}
		p := &failingBroker{fails: map[string]error{"close": errFailing}}
		c := x.behind(p, func(o *queue.Options) { o.Observer = l })
		r := x.receives(c, nil)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		x.failed("Receiver.Close", r.Close(noContext), queue.ErrInvalidOptions, "close")
		x.failed("Sender.Close", s.Close(noContext), queue.ErrInvalidOptions, "close")
		if p.count("close") != 0 || l.open[observe.Receiver] != 1 || l.open[observe.Sender] != 1 {
			x.Errorf("calls %v, open %v; want no close, and one of each role open", p.counts(), l.open)
		}
		x.failed("Receiver.Close", r.Close(x.Context()), errFailing, "close")
		x.failed("Sender.Close", s.Close(x.Context()), errFailing, "close")
		if l.open[observe.Receiver] != 0 || l.open[observe.Sender] != 0 {
			x.Errorf("open after Close: %v", l.open)
		}
		_, err = r.Stats(noContext)
		x.failed("Stats", err, queue.ErrInvalidOptions, "stats")
		p.set(func() { p.fails = map[string]error{"stats": errFailing} })
		_, err = x.receives(c, nil).Stats(x.Context())
		x.failed("Stats", err, errFailing, "stats")
	})
}

// TestRetryLimit: MaxMessageAge without a replay store, and none with one, without keys, or if
// every age is accepted.
func TestRetryLimit(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*queue.Options)
		want   time.Duration
	}{
		"a store":        {nil, 0},
		"no store":       {func(o *queue.Options) { without(o); o.Crypto.MaxMessageAge = time.Hour }, time.Hour},
		"no keys":        {func(o *queue.Options) { without(o); o.Keys, o.Crypto = nil, queue.CryptoConfig{} }, 0},
		"ages of all":    {func(o *queue.Options) { without(o); o.Crypto.InsecureSkipFreshness = true }, 0},
		"the default is": {without, 5 * time.Minute},
	} {
		inBubble(t, nil, func(x *fixture) {
			if got := x.receives(x.behind(&failingBroker{}, c.change), nil).RetryLimit(); got != c.want {
				x.Errorf("%s: %s, want %s", name, got, c.want)
			}
		})
	}
}

// TestRenewAllOverSources: deliveries of a session and of the queue share no call, and each has
// its own answer.
func TestRenewAllOverSources(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{}
		r := x.receives(x.behind(p, nil), nil)
		x.Send(&queue.Message{ID: "a", SessionID: "s", Body: []byte("a")})
		s := x.accept(r)
		inSession, err := s.ReceiveOne(x.Context())
		x.Must(err)
		x.Send(&queue.Message{ID: "b", Body: []byte("b")})
		x.Send(&queue.Message{ID: "c", Body: []byte("c")})
		b, c := x.One(r), x.One(r)
		x.Wait(10 * time.Second)
		for i, err := range r.RenewAll(x.Context(), []*queue.Delivery{b, c, inSession, b}) {
			x.Logf("%d: %v", i, err)
			x.Must(err)
		}
		if p.count("renew") != 3 {
			x.Errorf("%d calls, want 3", p.count("renew"))
		}
		if left := time.Until(s.LockedUntil()); left != 30*time.Second {
			x.Errorf("the session is locked for %s, want what its message is", left)
		}
	})
}
