package envelope

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// sealKiB returns an envelope of exactly 1 KiB.
func sealKiB(t *testing.T, key Deriver) []byte { return sealKiBPadded(t, key, 0) }

// sealKiBPadded is sealKiB with that many zeros of padding; with 0, without the
// flag.
func sealKiBPadded(t *testing.T, key Deriver, zeros int) []byte {
	t.Helper()
	h := testHeader(t)
	inner := 1024 - SealedSize(h, 0)
	plaintext, p := make([]byte, inner), NoPadding
	if zeros > 0 {
		plaintext, p = plaintext[:inner-lengthSize-zeros], PadTo(inner)
	}
	for i := range plaintext {
		plaintext[i] = byte(i)
	}
	b, err := newTestSealer(t, key).SealPadded(nil, h, plaintext, testData(t, &testContext, h.Bound), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != 1024 {
		t.Fatalf("an envelope of %d bytes, want 1024", len(b))
	}
	return b
}

// Every single bit of an envelope counts, with a cold cache and with a warm one.
func TestEveryBit(t *testing.T) {
	key := newMasterKey(1)
	t.Run("not padded", func(t *testing.T) { everyBit(t, key, sealKiB(t, key)) })
	t.Run("padded", func(t *testing.T) { everyBit(t, key, sealKiBPadded(t, key, 100)) })
}

func everyBit(t *testing.T, key Deriver, body []byte) {
	t.Helper()
	warm := NewOpener(nil)
	if _, err := receive(warm, key, body, &testContext); err != nil {
		t.Fatal(err)
	}
	cold := NewOpener(&OpenerOptions{Entries: -1})
	flipped := 0
	for i := range body {
		for bit := range 8 {
			body[i] ^= 1 << bit
			for name, o := range map[string]*Opener{"warm": warm, "cold": cold} {
				if got, err := receive(o, key, body, &testContext); !rejected(err) || got != nil {
					t.Errorf("byte %d, bit %d, %s: %d bytes, %v", i, bit, name, len(got), err)
				}
			}
			body[i] ^= 1 << bit
			flipped++
		}
	}
	if flipped != 8*1024 {
		t.Errorf("%d bits", flipped)
	}
	if _, err := receive(warm, key, body, &testContext); err != nil {
		t.Errorf("in the end the envelope no longer opens: %v", err)
	}
}

// Stream, sequence, sender and all else of one authentic message do not go with
// another, which differs from it in nothing but that.
func TestExchanged(t *testing.T) {
	key := newMasterKey(1)
	o := NewOpener(nil)
	data := testData(t, &testContext, testHeader(t).Bound)
	seal := func(set func(*Header)) []byte {
		h := testHeader(t)
		set(h)
		s, err := NewSealer(key, h.KeyID, h.Sender)
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Seal(nil, h, testPlaintext, data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Open(nil, mustParse(t, b), key, data); err != nil {
			t.Fatal(err)
		}
		return b
	}
	sender := fixedSize + 1 + 2*16 + 1 + len(testHeader(t).KeyID) + 1
	saltAt := testHeader(t).size(len(encodeIDs(testHeader(t).KeyID, testSender))) - SaltSize - CommitmentSize
	for name, tt := range map[string]struct {
		from, to int
		set      func(*Header)
	}{
		"encrypted_at":        {encryptedAtAt, notBeforeAt, func(h *Header) { h.EncryptedAt++ }},
		"not_before":          {notBeforeAt, expiresAtAt, func(h *Header) { h.NotBefore = 0 }},
		"expires_at":          {expiresAtAt, streamAt, func(h *Header) { h.ExpiresAt = 0 }},
		"stream":              {streamAt, sequenceAt, func(h *Header) { h.Stream[15]++ }},
		"sequence":            {sequenceAt, settledAt, func(h *Header) { h.Sequence++ }},
		"settled":             {settledAt, previousAt, func(h *Header) { h.Settled++ }},
		"previous":            {previousAt, resealedAtAt, func(h *Header) { h.Previous = 0 }},
		"resealed_at":         {resealedAtAt, fixedSize, func(h *Header) { h.ResealedAt = 0 }},
		"void ranges":         {fixedSize + 1, fixedSize + 1 + 2*16, func(h *Header) { h.Void = []Range{{1, 2}, {5, 6}} }},
		"sender ID":           {sender, sender + len(testSender), func(h *Header) { h.Sender = "router/eu-2" }},
		"salt and commitment": {saltAt, saltAt + SaltSize + CommitmentSize, func(*Header) {}},
	} {
		a, b := seal(func(*Header) {}), seal(tt.set)
		if bytes.Equal(a[tt.from:tt.to], b[tt.from:tt.to]) {
			t.Fatalf("%s: both messages have the same", name)
		}
		for i := tt.from; i < tt.to; i++ {
			a[i], b[i] = b[i], a[i]
		}
		for _, body := range [][]byte{a, b} {
			m, err := Parse(body)
			if err != nil {
				t.Errorf("%s: %v: it does not parse any more", name, err)
				continue
			}
			if got, err := o.Open(nil, &m, key, data); err != ErrAuthenticationFailed || got != nil { // the bare sentinel: opaque
				t.Errorf("%s: %q, %v, want ErrAuthenticationFailed", name, got, err)
			}
		}
	}
}

// Every single bit of every bound field counts.
func TestEveryBitOfContext(t *testing.T) {
	key := newMasterKey(1)
	body := sealKiB(t, key)
	o := NewOpener(nil)
	flips := func(s string, check func(string)) {
		b := []byte(s)
		for i := range b {
			for bit := range 8 {
				b[i] ^= 1 << bit
				check(string(b))
				b[i] ^= 1 << bit
			}
		}
	}
	tried := 0
	reject := func(field string, c Context) {
		tried++
		if got, err := receive(o, key, body, &c); !rejected(err) || got != nil {
			t.Errorf("%s: %q, %v", field, got, err)
		}
	}
	for field, set := range map[string]func(*Context) *string{
		"message ID":     func(c *Context) *string { return &c.MessageID },
		"session ID":     func(c *Context) *string { return &c.SessionID },
		"content type":   func(c *Context) *string { return &c.ContentType },
		"correlation ID": func(c *Context) *string { return &c.CorrelationID },
	} {
		c := testContext
		flips(*set(&c), func(s string) {
			*set(&c) = s
			reject(field, c)
		})
	}
	for name, value := range testContext.Attributes {
		c := testContext
		c.Attributes = maps.Clone(testContext.Attributes)
		flips(value, func(s string) {
			c.Attributes[name] = s
			reject("value of "+name, c)
		})
		delete(c.Attributes, name)
		flips(name, func(s string) {
			c.Attributes[s] = value
			reject("name "+name, c)
			delete(c.Attributes, s)
		})
	}
	if tried < 8*80 {
		t.Errorf("only %d alterations", tried)
	}
}

// mutate alters body in a random way. The result may be the same.
func mutate(r *rand.Rand, body, other []byte) []byte {
	b := bytes.Clone(body)
	for range 1 + r.IntN(4) {
		if len(b) == 0 {
			return b
		}
		i, j := r.IntN(len(b)), r.IntN(len(b))
		if i > j {
			i, j = j, i
		}
		switch r.IntN(9) {
		case 0: // a bit
			b[i] ^= 1 << r.IntN(8)
		case 1: // a byte
			b[i] = byte(r.Uint32())
		case 2: // a run of bytes
			for k := i; k < min(j, i+16); k++ {
				b[k] = byte(r.Uint32())
			}
		case 3: // cut
			b = b[:j]
		case 4: // longer
			b = append(b, byte(r.Uint32()))
		case 5: // insert
			b = slices.Insert(b, i, byte(r.Uint32()))
		case 6: // delete
			b = slices.Delete(b, i, min(j+1, i+8))
		case 7: // exchange two bytes
			b[i], b[j] = b[j], b[i]
		case 8: // from another message of the same key, at the same place
			copy(b[i:j+1], other[min(i, len(other)):])
		}
	}
	return b
}

// No random alteration opens. The seed is fixed.
func TestRandomMutations(t *testing.T) {
	const count = 110_000
	key := newMasterKey(1)
	body := sealKiB(t, key)
	other := sealKiB(t, key)
	o := NewOpener(&OpenerOptions{Entries: 8})
	for _, b := range [][]byte{body, other} {
		if _, err := receive(o, key, b, &testContext); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	tried, parsed := 0, 0
	for range count {
		b := mutate(r, body, other)
		if bytes.Equal(b, body) || bytes.Equal(b, other) {
			continue
		}
		tried++
		if _, err := Parse(b); err == nil {
			parsed++
		}
		if got, err := receive(o, key, b, &testContext); !rejected(err) || got != nil {
			t.Fatalf("mutation opens: %d bytes, %v\n%x", len(got), err, b)
		}
	}
	if tried < 100_000 || parsed < tried/2 {
		t.Errorf("%d mutations, of which %d parse: too few", tried, parsed)
	}
}
