package sealing

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/stream"
	"github.com/queue-runtime/queue/keys"
)

// A message comes out as it went in, with the attributes that were added apart.
func TestSealAndOpen(t *testing.T) {
	p := newPair(t)
	due := time.Now().Add(time.Minute)
	m := &driver.Message{ID: "m", SessionID: "s", Body: []byte("body"), Attributes: map[string]string{"a": "1"}, NotBefore: due, TTL: time.Hour}
	p.seal(m)
	if !m.Sealed || bytes.Contains(m.Body, []byte("body")) || !envelope.IsSealed(m.Body) {
		t.Fatalf("the body is %q", m.Body)
	}
	d := &driver.Delivery{Message: *m}
	d.Attributes = map[string]string{"a": "1", "hop": "2"}
	got, f := open(t.Context(), p.opener, d)
	if f != nil {
		t.Fatal(f)
	}
	switch {
	case string(got.Body) != "body" || got.KeyID() != "k1":
		t.Errorf("body %q under key %q", got.Body, got.KeyID())
	case len(got.Attributes) != 1 || got.Attributes["a"] != "1" || len(got.Added) != 1 || got.Added["hop"] != "2":
		t.Errorf("attributes %v, added %v", got.Attributes, got.Added)
	case got.NotBefore().Before(due) || got.NotBefore().After(due.Add(time.Millisecond)) || got.TTL() < time.Hour || got.TTL() > time.Hour+time.Millisecond:
		t.Errorf("due at %s for %s, want %s for an hour", got.NotBefore(), got.TTL(), due)
	case got.EncryptedAt().IsZero() || got.ExpiresAt().IsZero() || !got.ResealedAt().IsZero():
		t.Errorf("times %s, %s, %s", got.EncryptedAt(), got.ExpiresAt(), got.ResealedAt())
	}
	if e := p.events; e.sealed != 1 || e.opened != 1 || e.used != 1 || e.failed != 0 {
		t.Errorf("the Observer was told %+v", e)
	}
	if m = (&driver.Message{ID: "m2"}); p.trySeal(m) != nil || p.events.used != 1 {
		t.Error("the second message under a key tells of the key again")
	}
}

// What is not sealed passes as it is.
func TestOpenPlaintext(t *testing.T) {
	p := newPair(t)
	got, f := open(t.Context(), p.opener, &driver.Delivery{Message: driver.Message{Body: []byte("plain"), Attributes: map[string]string{"a": "1"}}})
	if f != nil || string(got.Body) != "plain" || got.Sealed || got.KeyID() != "" || got.Attributes["a"] != "1" {
		t.Errorf("Open = %+v, %v", got, f)
	}
}

// Each refusal of QueueOpener.Open, once.
func TestOpenRefuses(t *testing.T) {
	p := newPair(t)
	with := func(change func(*driver.Delivery)) *driver.Delivery {
		d := p.sealed()
		change(d)
		return d
	}
	for what, change := range map[string]func(*driver.Delivery){
		"another body":         func(d *driver.Delivery) { d.Body[len(d.Body)-1] ^= 1 },
		"another ID":           func(d *driver.Delivery) { d.ID = "other" },
		"another session":      func(d *driver.Delivery) { d.SessionID = "other" },
		"another value":        func(d *driver.Delivery) { d.Attributes = map[string]string{"a": "2"} },
		"a value that is gone": func(d *driver.Delivery) { d.Attributes = nil },
		"another type":         func(d *driver.Delivery) { d.ContentType = "other" },
	} {
		p.refuses(what, with(change), driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	}
	p.refuses("undecodable", with(func(d *driver.Delivery) { d.Undecodable = true }), driver.ReasonInvalidEnvelope, envelope.ErrInvalidEnvelope)
	p.refuses("no marker", with(func(d *driver.Delivery) { d.Body = []byte("x") }), driver.ReasonInvalidEnvelope, envelope.ErrInvalidEnvelope)
	p.refuses("a cut envelope", with(func(d *driver.Delivery) { d.Body = d.Body[:8] }), driver.ReasonInvalidEnvelope, envelope.ErrInvalidEnvelope)
	p.refuses("another version", with(func(d *driver.Delivery) { d.Body[4] = 9 }), driver.ReasonUnsupportedVersion, envelope.ErrUnsupportedVersion)

	d := p.sealed()
	p.opener.Queue = "elsewhere"
	p.refuses("another queue", d, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	p.opener.Origins = []string{orders}
	if _, f := open(t.Context(), p.opener, d); f != nil {
		t.Errorf("an accepted origin: %v", f)
	}
	p.opener.Senders = []string{"bot"}
	p.refuses("another sender", d, driver.ReasonSender, ErrSender)
	p.opener.Senders = nil
	p.opener.Crypto = nil
	p.refuses("no keys", d, driver.ReasonKeyNotFound, keys.ErrNotFound)
}

// The list of valid keys is asked before the key itself.
func TestOpenAsksForValidKeys(t *testing.T) {
	p := newPair(t)
	d := p.sealed()
	cached, err := keys.NewCached(p.ring, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cached.Close(context.Background()) }()
	p.opener.Valid, p.opener.Crypto = cached, NewCipher(cached)
	if _, f := open(t.Context(), p.opener, d); f != nil {
		t.Fatal(f)
	}
	other := newPair(t)
	if err := other.ring.Add(newKey(t, "k2", 2, nil)); err != nil {
		t.Fatal(err)
	}
	if err := other.ring.SetCurrent("k2"); err != nil {
		t.Fatal(err)
	}
	p.refuses("a key that is not valid", other.sealed(), driver.ReasonKeyNotFound, keys.ErrNotFound)
}

// Each way in which a key cannot be had while a message is opened.
func TestOpenWithoutItsKey(t *testing.T) {
	p := newPair(t)
	d := p.sealed()
	broken := &provider{Provider: p.ring}
	p.opener.Crypto = NewCipher(broken)
	broken.err = errAway
	p.refuses("a provider that is away", d, driver.ReasonKeyProvider, ErrKeyProvider)
	broken.err = keys.ErrNotFound
	p.refuses("a key that is gone", d, driver.ReasonKeyNotFound, keys.ErrNotFound)
	broken.err, broken.nothing = nil, true
	p.refuses("neither key nor error", d, driver.ReasonKeyProvider, ErrKeyProvider)
	broken.key = newKey(t, "k2", 2, nil)
	p.refuses("another key", d, driver.ReasonKeyProvider, ErrKeyProvider)
	broken.key = newKey(t, "k1", 1, &keys.Options{Queues: []string{"elsewhere"}})
	p.refuses("a key of other queues", d, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	destroyed := newKey(t, "k1", 1, nil)
	destroyed.Destroy()
	broken.key = destroyed
	p.opener.Crypto = NewCipher(broken)
	p.refuses("a key that was destroyed", d, driver.ReasonKeyNotFound, keys.ErrNotFound)
	bot, err := newKey(t, "k1", 1, nil).Sender("bot")
	if err != nil {
		t.Fatal(err)
	}
	broken.key = bot
	p.refuses("a sender key", d, driver.ReasonKeyNotFound, keys.ErrNotFound)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	broken.key, broken.err = nil, errAway
	if _, f := open(ctx, p.opener, d); f == nil || f.Reason != "" || !errors.Is(f, context.Canceled) {
		t.Errorf("a caller that left: %v, want its context's error and no reason", f)
	}
}

// The key is looked up before the context is made (qre1, Section 6.1): a message whose
// key is not there yet is one that waits, not one that was altered.
func TestOpenLooksForTheKeyFirst(t *testing.T) {
	for what, change := range map[string]func(*driver.Delivery){
		"no message ID":           func(d *driver.Delivery) { d.ID = "" },
		"no attribute":            func(d *driver.Delivery) { d.Attributes = nil },
		"an attribute came twice": func(d *driver.Delivery) { d.DuplicateName = true },
	} {
		p := newPair(t)
		d := p.sealed()
		change(d)
		p.refuses(what, d, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
		away := &provider{Provider: p.ring, err: keys.ErrNotFound}
		p.opener.Crypto = NewCipher(away)
		p.refuses(what+", and no key", d, driver.ReasonKeyNotFound, keys.ErrNotFound)
		away.err = errAway
		p.refuses(what+", and no answer", d, driver.ReasonKeyProvider, ErrKeyProvider)
	}
}

// The provider is asked for the key of a message once: by what it answered the message is
// judged and opened.
func TestOpenAsksForTheKeyOnce(t *testing.T) {
	p := newPair(t)
	d := p.sealed()
	asked, n := &hooked{Provider: p.ring}, 0
	asked.during = func() { n++ }
	p.opener.Crypto = NewCipher(asked)
	if _, f := open(t.Context(), p.opener, d); f != nil || n != 1 {
		t.Errorf("%d questions, %v; want one", n, f)
	}
}

// A message whose context cannot be made does not open, also if a holder of the key sealed
// it without one: nothing beside its body would be authentic.
func TestOpenNeedsAContext(t *testing.T) {
	p := newPair(t)
	h := envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: orders, KeyID: "k1", Stream: [16]byte{1}, Sequence: 1}
	m, err := p.sealer.Crypto.Encrypt(t.Context(), "k1", h, []byte("body"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "m"} {
		d := &driver.Delivery{Message: driver.Message{ID: id, Body: m.Bytes()}}
		p.refuses("sealed without a context, ID "+id, d, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	}
}

// Each refusal of QueueSealer.Seal, once; the message keeps its plaintext.
func TestSealRefuses(t *testing.T) {
	p := newPair(t)
	check := func(what string, reason string, err error) {
		t.Helper()
		m := &driver.Message{ID: "m", Body: []byte("body")}
		p.failed(what, p.trySeal(m), reason, err)
		if m.Sealed || string(m.Body) != "body" {
			t.Errorf("%s: the message was changed", what)
		}
	}
	broken := &provider{Provider: p.ring}
	p.sealer.Crypto = NewCipher(broken)
	broken.err = errAway
	p.sealer.Keys = broken
	check("no current key", driver.ReasonEncryptionFailed, ErrKeyProvider)
	p.sealer.Keys = p.ring
	check("a provider that is away", driver.ReasonEncryptionFailed, ErrKeyProvider)
	broken.err = keys.ErrNotFound
	check("a key that is gone", driver.ReasonEncryptionFailed, keys.ErrNotFound)
	broken.err = nil
	broken.key = newKey(t, "k1", 1, &keys.Options{Expires: time.Now().Add(-minute)})
	check("an expired key", driver.ReasonEncryptionFailed, keys.ErrExpired)
	broken.key = newKey(t, "k1", 1, &keys.Options{Queues: []string{"elsewhere"}})
	check("a key of other queues", driver.ReasonEncryptionFailed, keys.ErrInvalidKey)
	p.sealer.Crypto = noEnvelope{}
	check("a provider without envelopes", driver.ReasonEncryptionFailed, envelope.ErrEncryptionFailed)
	if p.events.failed != 6 {
		t.Errorf("the Observer was told of %d failures, want 6", p.events.failed)
	}
	p.sealer.Crypto = NewCipher(p.ring)
	f := p.trySeal(&driver.Message{ID: "m", Attributes: map[string]string{strings.Repeat("x", 300): ""}})
	p.failed("a name that cannot be bound", f, "", driver.ErrInvalid)
}

// noEnvelope is a Crypto that returns none.
type noEnvelope struct{ Crypto }

func (noEnvelope) Encrypt(context.Context, keys.ID, envelope.Header, []byte, []byte) (envelope.EncryptedMessage, error) {
	return envelope.EncryptedMessage{}, nil
}

// hardware is a Crypto whose keys are its own.
type hardware struct{ *Cipher }

// A key that is retired between the question and the seal is replaced by the new one.
func TestSealUnderTheNextKey(t *testing.T) {
	p := newPair(t)
	m := &driver.Message{ID: "m", Body: []byte("body")}
	var numbers Numbers
	p.sealer.Begin(&numbers, stream.Plain, time.Now())
	n := numbers.Next("k0", m)
	id, f := p.sealer.Seal(t.Context(), &numbers, &n, m, time.Now())
	if f != nil || id != "k1" {
		t.Fatalf("sealed under %q: %v", id, f)
	}
	if _, f := open(t.Context(), p.opener, &driver.Delivery{Message: *m}); f != nil {
		t.Error(f)
	}
}

// Another Crypto seals and opens as well, and tells of no key.
func TestAnotherCrypto(t *testing.T) {
	p := newPair(t)
	c := hardware{NewCipher(p.ring)}
	p.sealer.Crypto, p.opener.Crypto = c, c
	d := p.sealed()
	if got, f := open(t.Context(), p.opener, d); f != nil || string(got.Body) != "body" || p.events.used != 0 {
		t.Errorf("Open = %+v, %v", got, f)
	}
	if _, f := p.sealer.SealState(t.Context(), "s", nil); f == nil || !errors.Is(f, errors.ErrUnsupported) {
		t.Errorf("SealState = %v", f)
	}
	if _, f := p.opener.OpenState(t.Context(), "s", d.Body); f == nil || !errors.Is(f, errors.ErrUnsupported) {
		t.Errorf("OpenState = %v", f)
	}
	if f := p.sealer.Reseal(t.Context(), "k1", &Opened{}, &driver.Message{}, 0); f == nil || !errors.Is(f, errors.ErrUnsupported) {
		t.Errorf("Reseal = %v", f)
	}
}

// A resealed message keeps its identity and gets a new age; each refusal, once.
func TestReseal(t *testing.T) {
	p := newPair(t)
	d := p.sealed()
	opened, f := open(t.Context(), p.opener, d)
	if f != nil {
		t.Fatal(f)
	}
	if err := p.ring.Add(newKey(t, "k2", 2, nil)); err != nil {
		t.Fatal(err)
	}
	back := d.Message
	if f := p.sealer.Reseal(t.Context(), "k2", &opened, &back, time.Hour); f != nil {
		t.Fatal(f)
	}
	again, f := open(t.Context(), p.opener, &driver.Delivery{Message: back})
	if f != nil {
		t.Fatal(f)
	}
	a, b := &opened.Envelope, &again.Envelope
	switch {
	case a.Stream != b.Stream || a.Sequence != b.Sequence || a.EncryptedAt != b.EncryptedAt || a.Origin != b.Origin:
		t.Errorf("the identity changed: %+v to %+v", a, b)
	case again.KeyID() != "k2" || string(again.Body) != "body" || again.ResealedAt().IsZero() || time.Until(again.ExpiresAt()) < 59*time.Minute:
		t.Errorf("resealed as %+v", again)
	}
	p.failed("no such key", p.sealer.Reseal(t.Context(), "k9", &opened, &back, 0), driver.ReasonEncryptionFailed, keys.ErrNotFound)
	long := opened
	long.Attributes = map[string]string{strings.Repeat("x", 300): ""}
	p.failed("a name that cannot be bound", p.sealer.Reseal(t.Context(), "k2", &long, &driver.Message{ID: "m"}, 0), "", driver.ErrInvalid)
	bot, err := newKey(t, "k1", 1, nil).Sender("bot")
	if err != nil {
		t.Fatal(err)
	}
	p.sealer.Crypto = NewCipher(&provider{Provider: p.ring, key: bot})
	p.failed("a sender key", p.sealer.Reseal(t.Context(), "k1", &opened, &back, 0), driver.ReasonEncryptionFailed, envelope.ErrEncryptionFailed)
}

// The state of a session is bound to queue and session, and is no message; each refusal,
// once.
func TestState(t *testing.T) {
	p := newPair(t)
	stored, f := p.sealer.SealState(t.Context(), "s", []byte("state"))
	if f != nil {
		t.Fatal(f)
	}
	if got, f := p.opener.OpenState(t.Context(), "s", stored); f != nil || string(got) != "state" {
		t.Errorf("OpenState = %q, %v", got, f)
	}
	refused := func(what, session string, b []byte, reason string, err error) {
		t.Helper()
		_, f := p.opener.OpenState(t.Context(), session, b)
		p.failed(what, f, reason, err)
	}
	refused("another session", "other", stored, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	refused("a message", "s", p.sealed().Body, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	refused("plaintext", "s", []byte("state"), driver.ReasonInvalidEnvelope, envelope.ErrInvalidEnvelope)
	p.refuses("a state as a message", &driver.Delivery{Message: driver.Message{ID: "m", Body: stored}}, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	p.opener.Queue = "elsewhere"
	refused("another queue", "s", stored, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	p.opener.Queue, p.opener.Crypto = orders, nil
	refused("no keys", "s", stored, driver.ReasonKeyNotFound, keys.ErrNotFound)

	seal := func(what string, provided *provider, err error) {
		t.Helper()
		p.sealer.Crypto, p.sealer.Keys = NewCipher(provided), p.ring
		_, f := p.sealer.SealState(t.Context(), "s", nil)
		p.failed(what, f, driver.ReasonEncryptionFailed, err)
	}
	bot, err := newKey(t, "k1", 1, nil).Sender("bot")
	if err != nil {
		t.Fatal(err)
	}
	seal("a sender key", &provider{Provider: p.ring, key: bot}, keys.ErrSenderKey)
	seal("a provider that is away", &provider{Provider: p.ring, err: errAway}, ErrKeyProvider)
	p.sealer.Keys = &provider{Provider: p.ring, err: errAway}
	_, f = p.sealer.SealState(t.Context(), "s", nil)
	p.failed("no current key", f, driver.ReasonEncryptionFailed, ErrKeyProvider)
}

// A detail opens beside the message that it was sealed for and nowhere else, tells the
// broker nothing by its length, and fits into what every broker keeps.
func TestDetail(t *testing.T) {
	p := newPair(t)
	const why = "3 deliveries"
	m := p.sealed()
	length := 0
	for _, text := range []string{"x", "no such account: Jane Doe", strings.Repeat("ä", 5000)} {
		stored, f := p.sealer.AppendDetail(t.Context(), why, text, m.Body)
		if f != nil {
			t.Fatal(f)
		}
		if length == 0 {
			length = len(stored)
		}
		if len(stored) != length || len(stored) > 4096-512 {
			t.Errorf("a text of %d bytes becomes %d, another %d", len(text), len(stored), length)
		}
		plain, sealed := SplitDetail(stored)
		got, f := p.opener.OpenDetail(t.Context(), sealed, m.Body)
		if f != nil {
			t.Fatal(f)
		}
		if plain != why || got != text && (len(got) < 1900 || !strings.HasPrefix(text, got) || !utf8.ValidString(got)) {
			t.Errorf("%q, %q", plain, got)
		}
		refused := func(what string, sealed, body []byte, reason string, err error) {
			t.Helper()
			_, f := p.opener.OpenDetail(t.Context(), sealed, body)
			p.failed(what, f, reason, err)
		}
		authentication := func(what string, sealed, body []byte) {
			t.Helper()
			refused(what, sealed, body, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
		}
		authentication("another message", sealed, p.sealed().Body)
		authentication("a message as a detail", m.Body, m.Body)
		altered := bytes.Clone(sealed)
		altered[len(altered)-1] ^= 1
		authentication("an altered detail", altered, m.Body)
		p.refuses("a detail as a message", &driver.Delivery{Message: driver.Message{ID: "m", Body: sealed}}, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
		if _, f := p.opener.OpenState(t.Context(), "s", sealed); f == nil {
			t.Error("a detail opens as the state of a session")
		}
		_, short := SplitDetail(stored[:len(stored)/2])
		refused("a detail that was cut short", short, m.Body, driver.ReasonInvalidEnvelope, envelope.ErrInvalidEnvelope)
		p.opener.Queue = "elsewhere"
		authentication("another queue", sealed, m.Body)
		p.opener.Queue = orders
	}
	if plain, sealed := SplitDetail(why); plain != why || sealed != nil {
		t.Errorf("without a detail: %q, %q", plain, sealed)
	}
	// A state is no detail, and neither is what a sender key seals.
	state, f := p.sealer.SealState(t.Context(), "s", []byte("state"))
	if f != nil {
		t.Fatal(f)
	}
	_, f = p.opener.OpenDetail(t.Context(), state, m.Body)
	p.failed("a state", f, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	bot, err := newKey(t, "k1", 1, nil).Sender("bot")
	if err != nil {
		t.Fatal(err)
	}
	s, err := envelope.NewSealer(bot, "k1", "bot")
	if err != nil {
		t.Fatal(err)
	}
	forged, err := s.SealApp(nil, &envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: orders, Sender: "bot"}, []byte("x"), detailData(orders, m.Body))
	if err != nil {
		t.Fatal(err)
	}
	_, f = p.opener.OpenDetail(t.Context(), forged, m.Body)
	p.failed("a sender's detail", f, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
	p.sealer.Crypto = NewCipher(&provider{Provider: p.ring, key: bot})
	_, f = p.sealer.AppendDetail(t.Context(), why, "x", m.Body)
	p.failed("a sender key", f, driver.ReasonEncryptionFailed, keys.ErrSenderKey)
	// The longest IDs leave the room that queue.Reason promises.
	h := envelope.Header{KeyID: strings.Repeat("k", 255), Origin: strings.Repeat("o", 255)}
	if room := sealedDetail - envelope.SealedSize(&h, 0); room < 1900 {
		t.Errorf("room for %d bytes", room)
	}
	if n := len(detailMark) + detailEncoding.EncodedLen(sealedDetail) + len(detailEnd) + 512; n > 4096 {
		t.Errorf("a description of %d bytes", n)
	}
}

// What an attacker makes of a detail, and a text that is no text, is taken apart all the same.
func TestDetailOfAnything(t *testing.T) {
	whole := detailEncoding.EncodeToString([]byte("detail"))
	for name, c := range map[string]struct{ text, sealed string }{
		"whole":       {whole + detailEnd, "detail"},
		"without end": {whole, ""},
		"not base64":  {whole[:4] + "?" + detailEnd, ""},
		"empty":       {detailEnd, ""},
	} {
		if plain, sealed := SplitDetail("why" + detailMark + c.text); plain != "why" || sealed == nil || string(sealed) != c.sealed {
			t.Errorf("%s: %q, %q; want %q", name, plain, sealed, c.sealed)
		}
	}
	for text, want := range map[string]string{"\x80\x80\x80\x80": "", "a\x80\x80\x80": "", "ab\x80\x80": "a", "äöü": "ä", "aäö": "aä", "abc": "abc"} {
		if got := cut(text, 3); got != want {
			t.Errorf("%q is cut to %q, want %q", text, got, want)
		}
	}
}

// A state that a sender key sealed is refused: its holder writes messages only.
func TestStateOfASender(t *testing.T) {
	p := newPair(t)
	bot, err := newKey(t, "k1", 1, nil).Sender("bot")
	if err != nil {
		t.Fatal(err)
	}
	s, err := envelope.NewSealer(bot, "k1", "bot")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := s.SealApp(nil, &envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: orders, Sender: "bot"}, []byte("state"), stateData(orders, "s"))
	if err != nil {
		t.Fatal(err)
	}
	_, f := p.opener.OpenState(t.Context(), "s", stored)
	p.failed("a sender's state", f, driver.ReasonAuthentication, envelope.ErrAuthenticationFailed)
}

// What was derived from a key that is retired is dropped, and the next seal under another
// one works.
func TestCipherForgets(t *testing.T) {
	p := newPair(t)
	cached, err := keys.NewCached(p.ring, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cached.Close(context.Background()) }()
	c := NewCipher(cached)
	h := envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: orders, KeyID: "k1", Stream: [16]byte{1}, Sequence: 1}
	m, err := c.Encrypt(t.Context(), "k1", h, []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := c.Decrypt(t.Context(), m, nil); err != nil || string(b) != "x" {
		t.Fatalf("Decrypt = %q, %v", b, err)
	}
	if c.current.Load() == nil {
		t.Fatal("there is no epoch")
	}
	c.EndEpochs()
	c.forget("k2")
	if c.current.Load() == nil {
		t.Error("another key was forgotten along")
	}
	c.forget("k1")
	if c.current.Load() != nil {
		t.Error("the epoch of a retired key is kept")
	}
	if _, err := c.Encrypt(t.Context(), "k9", h, nil, nil); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("Encrypt under a key that is not there: %v", err)
	}
}

// Plaintext that a receiver would take for sealed is known, in the form of the transport.
func TestLooksSealed(t *testing.T) {
	body := newPair(t).sealed().Body
	for _, c := range []struct {
		body []byte
		text bool
		want bool
	}{{body, false, true}, {body, true, true}, {[]byte("UVJFMSA="), true, true}, {[]byte("UVJFMSA="), false, false}, {[]byte("x"), true, false}} {
		if got := LooksSealed(c.body, c.text); got != c.want {
			t.Errorf("LooksSealed(%.10q, %t) = %t", c.body, c.text, got)
		}
	}
}

// TestBoundNamesChange: messages in turn with other attributes than the one before bind
// their own.
func TestBoundNamesChange(t *testing.T) {
	p := newPair(t)
	for _, names := range [][]string{{"a"}, {"b"}, {"a", "b"}, {"b", "c"}, nil, {"c", "d", "e"}, {"d"}, nil, {"d"}, {"d"}} {
		m := &driver.Message{ID: "m", Body: []byte("body"), Attributes: make(map[string]string)}
		for _, name := range names {
			m.Attributes[name] = "value of " + name
		}
		p.seal(m)
		e, err := envelope.Parse(m.Body)
		if err != nil || !slices.Equal(e.Bound, names) {
			t.Errorf("%q: bound %q, %v", names, e.Bound, err)
		}
		if got, f := open(t.Context(), p.opener, &driver.Delivery{Message: *m}); f != nil || len(got.Attributes) != len(names) || got.Added != nil || got.Envelope.Bound != nil {
			t.Errorf("%q: %v, %v, %v", names, got.Attributes, got.Added, f)
		}
	}
}
