package sealing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/stream"
	"github.com/queue-runtime/queue/keys"
)

// hooked is a provider that calls during before it answers for a key.
type hooked struct {
	keys.Provider
	during func()
	ids    int // questions for the current key
	idErr  error
}

func (p *hooked) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	k, err := p.Provider.GetKey(ctx, id)
	if p.during != nil {
		p.during()
	}
	return k, err
}

func (p *hooked) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	if p.ids++; p.idErr != nil {
		return "", p.idErr
	}
	return p.Provider.CurrentKeyID(ctx)
}

// next adds k2 and makes it the current key.
func (p *pair) next() {
	p.Helper()
	if err := p.ring.Add(newKey(p.TB, "k2", 2, nil)); err != nil {
		p.Fatal(err)
	}
	if err := p.ring.SetCurrent("k2"); err != nil {
		p.Fatal(err)
	}
}

func (p *pair) envelope() *envelope.EncryptedMessage {
	p.Helper()
	e, err := envelope.Parse(p.sealed().Body)
	if err != nil {
		p.Fatal(err)
	}
	return &e
}

// TestEpochOfAKey: messages under one key share a salt until EndEpochs, and another key has
// another one, also if its ID is the same.
func TestEpochOfAKey(t *testing.T) {
	p := newPair(t)
	c := p.sealer.Crypto.(*Cipher)
	c.EndEpochs() // there is none yet
	a, b := p.envelope(), p.envelope()
	if a.Salt != b.Salt {
		t.Error("two messages under one key have two salts")
	}
	c.EndEpochs()
	if b = p.envelope(); a.Salt == b.Salt {
		t.Error("the salt outlives EndEpochs")
	}
	first := c.current.Load()
	p.next()
	if p.envelope(); c.current.Load() == first {
		t.Error("another key seals in the epoch of the first")
	}
	same := &provider{Provider: p.ring, key: newKey(t, "k1", 1, nil)}
	c = NewCipher(same)
	h := envelope.Header{EncryptedAt: 1, Origin: orders, Stream: [16]byte{1}, Sequence: 1}
	if _, err := c.Encrypt(t.Context(), "k1", h, nil, nil); err != nil {
		t.Fatal(err)
	}
	first = c.current.Load()
	same.key = newKey(t, "k1", 3, nil)
	if _, err := c.Encrypt(t.Context(), "k1", h, nil, nil); err != nil || c.current.Load() == first {
		t.Errorf("another key of the same ID seals in the epoch of the first: %v", err)
	}
}

// TestCipherErrors: an error of sealing is returned, and no envelope with it.
func TestCipherErrors(t *testing.T) {
	p := newPair(t)
	c := p.sealer.Crypto.(*Cipher)
	if m, err := c.Encrypt(t.Context(), "k1", envelope.Header{Origin: orders}, nil, nil); err == nil || m.KeyID != "" {
		t.Errorf("a header without a number: %+v, %v", m, err)
	}
	gone := newKey(t, "k1", 1, nil)
	gone.Destroy()
	c = NewCipher(&provider{Provider: p.ring, key: gone})
	h := envelope.Header{EncryptedAt: 1, Origin: orders, Stream: [16]byte{1}, Sequence: 1}
	if _, err := c.Encrypt(t.Context(), "k1", h, nil, nil); !errors.Is(err, keys.ErrDestroyed) {
		t.Errorf("a destroyed key: %v", err)
	}
	d := p.sealed()
	opened, f := open(t.Context(), p.opener, d)
	if f != nil {
		t.Fatal(f)
	}
	p.sealer.Crypto = c
	p.failed("resealing under a destroyed key", p.sealer.Reseal(t.Context(), "k1", &opened, &driver.Message{ID: "m"}, 0), driver.ReasonEncryptionFailed, keys.ErrDestroyed)
}

// TestKeyThatExpiresLater seals until then.
func TestKeyThatExpiresLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		end := time.Now().Add(time.Minute)
		c := NewCipher(&provider{Provider: p.ring, key: newKey(t, "k1", 1, &keys.Options{Expires: end})})
		if _, err := c.sealingKey(t.Context(), "k1", orders); err != nil {
			t.Errorf("a minute before: %v", err)
		}
		time.Sleep(time.Until(end))
		if _, err := c.sealingKey(t.Context(), "k1", orders); !errors.Is(err, keys.ErrExpired) {
			t.Errorf("at its end: %v, want ErrExpired", err)
		}
	})
}

// TestUseConfirmsAKey: once a message was sealed or opened under a key, its ID takes no other
// secret. A message that does not open confirms nothing.
func TestUseConfirmsAKey(t *testing.T) {
	another := func(p *pair) error {
		p.next()
		if err := p.ring.Remove("k1"); err != nil {
			return err
		}
		return p.ring.Add(newKey(p.TB, "k1", 9, nil))
	}
	if err := another(newPair(t)); err != nil {
		t.Errorf("before it is used: %v", err)
	}
	p := newPair(t)
	d := p.sealed()
	if err := another(p); err == nil {
		t.Error("another secret takes the ID of a key that has sealed")
	}
	q := newPair(t)
	if _, f := open(t.Context(), q.opener, d); f != nil {
		t.Fatal(f)
	}
	if err := another(q); err == nil {
		t.Error("another secret takes the ID of a key that has opened a message")
	}
	q = newPair(t)
	d.Body[len(d.Body)-1] ^= 1
	if _, f := open(t.Context(), q.opener, d); f == nil {
		t.Fatal("an altered message opens")
	}
	if err := another(q); err != nil {
		t.Errorf("after a message that does not open: %v", err)
	}
}

// TestRetiredKeyIsDropped: the Cipher drops what it derived from a key when the key leaves the
// list, when a message finds it gone, and also when that happens beside a seal.
func TestRetiredKeyIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		cached, err := keys.NewCached(p.ring, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cached.Close(context.Background()) }()
		c := NewCipher(cached)
		p.sealer.Crypto, p.sealer.Keys = c, cached
		p.sealed()
		if c.current.Load() == nil {
			t.Fatal("there is no epoch")
		}
		p.next()
		if err := p.ring.Remove("k1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if _, err := cached.ValidKeyIDs(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c.current.Load() != nil {
			t.Error("the epoch of a key that left the list is kept")
		}
	})
	p := newPair(t)
	d := p.sealed()
	asked := &provider{Provider: p.ring}
	c := NewCipher(asked)
	p.sealer.Crypto, p.opener.Crypto = c, c
	p.sealed()
	asked.err = errAway
	p.refuses("a provider that is away", d, driver.ReasonKeyProvider, ErrKeyProvider)
	if c.current.Load() == nil {
		t.Error("the epoch is dropped because the provider is away")
	}
	asked.err = keys.ErrNotFound
	p.refuses("a key that is gone", d, driver.ReasonKeyNotFound, keys.ErrNotFound)
	if c.current.Load() != nil {
		t.Error("the epoch of a key that is gone is kept")
	}

	beside := &hooked{Provider: p.ring}
	c = NewCipher(beside)
	beside.during = func() { c.forget("k1") }
	p.sealer.Crypto = c
	p.sealed()
	if c.current.Load() != nil {
		t.Error("the epoch of a key that was retired while it was looked up is kept")
	}
}

// TestForgeriesKeepTheEpoch: messages that name keys which are not in the list of a Cached drop
// nothing of what was derived from others, also beside a seal. Otherwise a flood of them would
// cost each sender of the process a derivation a message.
func TestForgeriesKeepTheEpoch(t *testing.T) {
	p, other := newPair(t), newPair(t)
	other.next()
	forged := other.sealed()
	beside := &hooked{Provider: p.ring}
	cached, err := keys.NewCached(beside, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cached.Close(context.Background()) }()
	c := NewCipher(cached)
	p.sealer.Crypto, p.sealer.Keys = c, cached
	p.opener.Crypto, p.opener.Valid = c, cached
	beside.during = func() {
		p.refuses("a key that is not in the list", forged, driver.ReasonKeyNotFound, keys.ErrNotFound)
	}
	p.sealed()
	if c.current.Load() == nil {
		t.Error("the epoch is dropped because of a message under another key")
	}
}

// TestGetKeyAnswers has each answer of a provider, also those that contradict themselves.
func TestGetKeyAnswers(t *testing.T) {
	key, other := newKey(t, "k1", 1, nil), newKey(t, "k2", 2, nil)
	left, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		p    *provider
		want error
		text string
	}{
		"the key":                         {t.Context(), &provider{key: key}, nil, ""},
		"the key and an error":            {t.Context(), &provider{key: key, err: errAway}, ErrKeyProvider, "away"},
		"another key":                     {t.Context(), &provider{key: other}, ErrKeyProvider, "another key"},
		"another key and not found":       {t.Context(), &provider{key: other, err: keys.ErrNotFound}, keys.ErrNotFound, ""},
		"another key and an error":        {t.Context(), &provider{key: other, err: errAway}, ErrKeyProvider, "away"},
		"nothing":                         {t.Context(), &provider{nothing: true}, ErrKeyProvider, "neither key nor error"},
		"not found":                       {t.Context(), &provider{err: keys.ErrNotFound}, keys.ErrNotFound, ""},
		"an error":                        {t.Context(), &provider{err: errAway}, ErrKeyProvider, "away"},
		"an error, the caller left":       {left, &provider{err: errAway}, context.Canceled, ""},
		"not found, the caller left":      {left, &provider{err: keys.ErrNotFound}, keys.ErrNotFound, ""},
		"the key, though the caller left": {left, &provider{key: key}, nil, ""},
	} {
		k, err := GetKey(c.ctx, c.p, "k1")
		if !errors.Is(err, c.want) || (err == nil) != (k == key) || err != nil && (k != nil || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: %v, %v; want %v, %q", name, k, err, c.want, c.text)
		}
	}
	if err := ProviderError(left, errAway); err != context.Canceled {
		t.Errorf("ProviderError of a caller that left: %v", err)
	}
}

// TestSealTriesTheNextKeyOnce: only for a key that is gone, only if another one is current, and
// the number that was drawn under the old key is void.
func TestSealTriesTheNextKeyOnce(t *testing.T) {
	destroyed := newKey(t, "k1", 1, nil)
	destroyed.Destroy()
	for name, c := range map[string]struct {
		answer *provider // for k1
		next   bool      // k2 is current
		idErr  error
		asked  int
		under  keys.ID // empty: it fails
	}{
		"gone":                             {&provider{err: keys.ErrNotFound}, true, nil, 1, "k2"},
		"destroyed":                        {&provider{key: destroyed}, true, nil, 1, "k2"},
		"gone, and still current":          {&provider{err: keys.ErrNotFound}, false, nil, 1, ""},
		"gone, and none is known":          {&provider{err: keys.ErrNotFound}, true, errAway, 1, ""},
		"the provider is away":             {&provider{err: errAway}, true, nil, 0, ""},
		"the provider gives something odd": {&provider{nothing: true}, true, nil, 0, ""},
	} {
		p := newPair(t)
		if c.next {
			p.next()
		}
		c.answer.Provider = p.ring
		asked := &hooked{Provider: p.ring, idErr: c.idErr}
		p.sealer.Keys = asked
		p.sealer.Crypto = NewCipher(byID{"k1": c.answer, "k2": p.ring})
		var numbers Numbers
		p.sealer.Begin(&numbers, stream.Plain, time.Now())
		m := &driver.Message{ID: "m", Body: []byte("body")}
		n := numbers.Next("k1", m)
		first := n
		id, f := p.sealer.Seal(t.Context(), &numbers, &n, m, time.Now())
		if asked.ids != c.asked {
			t.Errorf("%s: asked %d times for the current key, want %d", name, asked.ids, c.asked)
		}
		if c.under == "" {
			if f == nil || id != "k1" || n.Stream != first.Stream || n.Sequence != first.Sequence || m.Sealed {
				t.Errorf("%s: sealed under %q as %+v, %v; want that it fails", name, id, n, f)
			}
			continue
		}
		if f != nil || id != c.under || n.Stream == first.Stream {
			t.Errorf("%s: sealed under %q as %+v, %v", name, id, n, f)
		}
		after := numbers.Next("k1", m)
		after.Confirm()
		if after = numbers.Next("k1", m); len(after.Voids) != 1 || after.Voids[0] != (stream.Range{First: first.Sequence, Last: first.Sequence}) {
			t.Errorf("%s: the stream of the old key has %v as void, want %d", name, after.Voids, first.Sequence)
		}
	}
}

// byID asks one provider for each key.
type byID map[keys.ID]keys.Provider

func (p byID) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	return p[id].GetKey(ctx, id)
}

func (byID) CurrentKeyID(context.Context) (keys.ID, error)  { return "", errAway }
func (byID) ValidKeyIDs(context.Context) ([]keys.ID, error) { return nil, errAway }

// TestNumbersOfMessages: what may come late or never by design is in a stream of its own.
func TestNumbersOfMessages(t *testing.T) {
	p := newPair(t)
	var numbers Numbers
	p.sealer.Begin(&numbers, stream.Plain, time.Now())
	plain := numbers.Next("k1", &driver.Message{})
	for name, c := range map[string]struct {
		m    *driver.Message
		same bool
	}{
		"plain":   {&driver.Message{}, true},
		"delayed": {&driver.Message{NotBefore: time.Now()}, false},
		"expires": {&driver.Message{TTL: 1}, false},
	} {
		if n := numbers.Next("k1", c.m); (n.Stream == plain.Stream) != c.same {
			t.Errorf("%s: in the stream of plain messages: %v, want %v", name, !c.same, c.same)
		}
	}
}

// TestNumberInTheHeader: the envelope carries what the sender knows of its stream.
func TestNumberInTheHeader(t *testing.T) {
	p := newPair(t)
	var numbers Numbers
	p.sealer.Begin(&numbers, stream.Plain, time.Now())
	m := &driver.Message{ID: "m", SessionID: "s", Body: []byte("x")}
	first := numbers.Next("k1", m)
	first.Confirm()
	lost := numbers.Next("k1", m)
	lost.Void()
	n := numbers.Next("k1", m)
	if n.Settled == 0 || n.Previous == 0 || len(n.Voids) == 0 {
		t.Fatalf("number %+v, want one that settles, follows and voids", n)
	}
	if _, f := p.sealer.Seal(t.Context(), &numbers, &n, m, time.Now()); f != nil {
		t.Fatal(f)
	}
	e, err := envelope.Parse(m.Body)
	if err != nil {
		t.Fatal(err)
	}
	if e.Stream != n.Stream || e.Sequence != n.Sequence || e.Settled != n.Settled || e.Previous != n.Previous || len(e.Void) != 1 || e.Void[0] != envelope.Range(n.Voids[0]) {
		t.Errorf("the header has %+v, want %+v", e.Header, n)
	}
	h := envelope.Header{Void: []envelope.Range{{First: 1, Last: 1}}}
	if n.into(&h); len(h.Void) != 1 {
		t.Errorf("%v is left of another number", h.Void)
	}
}

// TestHeaderTimes: a lifetime counts from when the message is due, or from now if it is due
// already, and times are rounded up.
func TestHeaderTimes(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	for name, c := range map[string]struct {
		m    driver.Message
		want envelope.Header
	}{
		"plain":          {driver.Message{}, envelope.Header{}},
		"a lifetime":     {driver.Message{TTL: time.Minute}, envelope.Header{ExpiresAt: 60_000}},
		"due later":      {driver.Message{NotBefore: now.Add(time.Second), TTL: time.Minute}, envelope.Header{NotBefore: 1000, ExpiresAt: 61_000}},
		"due before":     {driver.Message{NotBefore: now.Add(-time.Second), TTL: time.Minute}, envelope.Header{NotBefore: -1000, ExpiresAt: 60_000}},
		"a part of a ms": {driver.Message{NotBefore: now.Add(1), TTL: 1}, envelope.Header{NotBefore: 1, ExpiresAt: 1}},
	} {
		var h envelope.Header
		(&QueueSealer{Queue: orders}).fill(&h, &c.m, now)
		for _, x := range []struct {
			what      string
			got, want int64
		}{{"NotBefore", h.NotBefore, c.want.NotBefore}, {"ExpiresAt", h.ExpiresAt, c.want.ExpiresAt}} {
			if x.want != 0 {
				x.want += now.UnixMilli()
			}
			if x.got != x.want {
				t.Errorf("%s: %s is %d, want %d", name, x.what, x.got, x.want)
			}
		}
		if h.EncryptedAt != now.UnixMilli() || h.Origin != orders {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// TestFailedSealKeepsTheMessage: what cannot be sealed keeps its plaintext and is told once,
// and a caller that left is no failure of encryption.
func TestFailedSealKeepsTheMessage(t *testing.T) {
	p := newPair(t)
	seal := func(what string, ctx context.Context, reason string, want error) {
		t.Helper()
		m := &driver.Message{ID: "m", Body: []byte("body")}
		var numbers Numbers
		p.sealer.Begin(&numbers, stream.Plain, time.Now())
		n := numbers.Next("k1", m)
		_, f := p.sealer.Seal(ctx, &numbers, &n, m, time.Now())
		p.failed(what, f, reason, want)
		if m.Sealed || string(m.Body) != "body" {
			t.Errorf("%s: the message was changed to %q", what, m.Body)
		}
		if f != nil && strings.Count(f.Error(), envelope.ErrEncryptionFailed.Error()) > 1 {
			t.Errorf("%s: %v says it twice", what, f)
		}
	}
	p.sealer.Queue = strings.Repeat("q", envelope.MaxOrigin+1)
	seal("a name that is too long", t.Context(), driver.ReasonEncryptionFailed, envelope.ErrEncryptionFailed)
	p.sealer.Queue = orders
	p.sealer.Crypto = noEnvelope{}
	seal("no envelope", t.Context(), driver.ReasonEncryptionFailed, envelope.ErrEncryptionFailed)
	p.sealer.Crypto = refusing{}
	seal("a foreign CryptoProvider", t.Context(), driver.ReasonEncryptionFailed, errAway)
	if p.events.failed != 3 {
		t.Errorf("the Observer was told of %d failures, want 3", p.events.failed)
	}
	left, cancel := context.WithCancel(t.Context())
	cancel()
	seal("a caller that left", left, "", context.Canceled)
	p.sealer.Keys = &provider{err: errAway}
	if id, f := p.sealer.CurrentKey(left); id != "" || f == nil || f.Reason != "" || !errors.Is(f, context.Canceled) {
		t.Errorf("CurrentKey of a caller that left: %q, %v", id, f)
	}
	if p.events.failed != 3 {
		t.Error("a caller that left is told as a failure")
	}
	if id, f := p.sealer.CurrentKey(t.Context()); id != "" || f == nil || !errors.Is(f, ErrKeyProvider) || p.events.failed != 4 {
		t.Errorf("CurrentKey: %q, %v", id, f)
	}
}

// refusing is a Crypto that fails.
type refusing struct{ Crypto }

func (refusing) Encrypt(context.Context, keys.ID, envelope.Header, []byte, []byte) (envelope.EncryptedMessage, error) {
	return envelope.EncryptedMessage{}, errAway
}

// TestEachKeyIsToldOnce: the Observer is told of a key when it is taken up.
func TestEachKeyIsToldOnce(t *testing.T) {
	p := newPair(t)
	p.sealed()
	p.next()
	p.sealed()
	p.sealed()
	if p.events.used != 2 {
		t.Errorf("told %d times, want 2", p.events.used)
	}
}

// TestOpenTellsOfFailures: the event of a message that does not open has the error.
func TestOpenTellsOfFailures(t *testing.T) {
	p := newPair(t)
	d := p.sealed()
	if _, f := open(t.Context(), p.opener, d); f != nil || p.events.lastErr != nil || p.events.opened != 1 {
		t.Errorf("%v, told %v", f, p.events.lastErr)
	}
	d.ID = "other"
	p.refuses("another ID", d, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	if !errors.Is(p.events.lastErr, envelope.ErrAuthenticationFailed) || p.events.opened != 2 {
		t.Errorf("told %v", p.events.lastErr)
	}
}

// TestOpenRefusesRepeatedNames: a name that arrived twice has no value that can be trusted, in
// a sealed message and in one that is not.
func TestOpenRefusesRepeatedNames(t *testing.T) {
	p := newPair(t)
	d := p.sealed()
	d.DuplicateName = true
	p.refuses("sealed", d, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	p.refuses("plain", &driver.Delivery{Message: driver.Message{Body: []byte("x")}, DuplicateName: true}, driver.ReasonInvalidEnvelope, envelope.ErrInvalidEnvelope)
}

// TestOpenAcceptsSenders: a list of senders admits those in it and no other.
func TestOpenAcceptsSenders(t *testing.T) {
	p := newPair(t)
	d := p.sealed()
	for name, c := range map[string]struct {
		senders []string
		opens   bool
	}{"all": {nil, true}, "the master key": {[]string{"bot", ""}, true}, "others": {[]string{"bot"}, false}, "none": {[]string{}, false}} {
		p.opener.Senders = c.senders
		if _, f := open(t.Context(), p.opener, d); (f == nil) != c.opens {
			t.Errorf("%s: %v", name, f)
		}
	}
}

// TestOpenWithAListThatIsAway: keys of which the list cannot be had judge no message.
func TestOpenWithAListThatIsAway(t *testing.T) {
	p := newPair(t)
	d := p.sealed()
	cached, err := keys.NewCached(byID{"k1": p.ring}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cached.Close(context.Background()) }()
	p.opener.Valid = cached
	p.refuses("a list that is away", d, driver.ReasonKeyProvider, errAway)
	state, f := p.sealer.SealState(t.Context(), "s", nil)
	if f != nil {
		t.Fatal(f)
	}
	_, f = p.opener.OpenState(t.Context(), "s", state)
	p.failed("the state of a session", f, driver.ReasonKeyProvider, errAway)
}

// TestSplitAttributes: the maps are new, and nil if there is nothing in them.
func TestSplitAttributes(t *testing.T) {
	if a, b := split(map[string]string{}, nil); a != nil || b != nil {
		t.Errorf("none: %v, %v", a, b)
	}
	all := map[string]string{"a": "1", "b": "2"}
	if a, b := split(all, []string{"a", "b"}); len(a) != 2 || b != nil {
		t.Errorf("all bound: %v, %v", a, b)
	}
	a, b := split(all, []string{"a"})
	if fmt.Sprint(a, b) != "map[a:1] map[b:2]" {
		t.Errorf("one bound: %v, %v", a, b)
	}
	a["c"], b["c"] = "", ""
	if len(all) != 2 {
		t.Error("the broker's own map was changed")
	}
}

// TestTTLOfAMessage: without an expiry it is 0.
func TestTTLOfAMessage(t *testing.T) {
	p := newPair(t)
	opened, f := open(t.Context(), p.opener, p.sealed())
	if f != nil || opened.TTL() != 0 || !opened.ExpiresAt().IsZero() || !opened.NotBefore().IsZero() {
		t.Errorf("%s until %s, %v", opened.TTL(), opened.ExpiresAt(), f)
	}
}

// TestResealKeepsTheExpiry unless it is given another lifetime.
func TestResealKeepsTheExpiry(t *testing.T) {
	p := newPair(t)
	for _, lifetime := range []time.Duration{0, time.Hour} {
		m := &driver.Message{ID: "m", Body: []byte("body"), TTL: lifetime}
		p.seal(m)
		opened, f := open(t.Context(), p.opener, &driver.Delivery{Message: *m})
		if f != nil {
			t.Fatal(f)
		}
		back := *m
		if f := p.sealer.Reseal(t.Context(), "k1", &opened, &back, 0); f != nil {
			t.Fatal(f)
		}
		again, f := open(t.Context(), p.opener, &driver.Delivery{Message: back})
		if f != nil || !again.ExpiresAt().Equal(opened.ExpiresAt()) || !back.Sealed {
			t.Errorf("it expires at %s, %v; want %s", again.ExpiresAt(), f, opened.ExpiresAt())
		}
	}
}

// TestDirectUseIsBoundToTheQueue: names of one length, and names of which one continues in the
// session, are told apart.
func TestDirectUseIsBoundToTheQueue(t *testing.T) {
	for _, c := range []struct{ queue, session, other, its string }{
		{"ab", "c", "ac", "c"},
		{"ab", "c", "a", "bc"},
		{"ab", "c", "abc", ""},
		{"ab", "c", "ab", "d"},
	} {
		if bytes.Equal(stateData(c.queue, c.session), stateData(c.other, c.its)) {
			t.Errorf("the state of %q in %q is that of %q in %q", c.session, c.queue, c.its, c.other)
		}
	}
	if bytes.Equal(detailData("ab", nil), detailData("ac", nil)) || bytes.Equal(detailData("a", nil), detailData("a", []byte("b"))) {
		t.Error("the detail of a message is that of another")
	}
}
