package envelope

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"

	"github.com/queue-runtime/queue/spec"
)

// The vectors of package spec are recorded bytes. They are made anew, the same
// bytes for the same recipe, by
//
//	go test ./envelope -run TestRecordVectors -record
//
// What is recorded here is judged by TestVectors and by the implementation in
// spec/interop, which know nothing of the recipes.
var record = flag.Bool("record", false, "write the test vectors of package spec")

const vectorFolder = "../spec/vectors"

// recipe is a vector in the making: a message that was sealed, to be altered.
type recipe struct {
	t       *testing.T
	header  Header
	sent    Context
	padding Padding
	v       *spec.Vector
	key     *masterKey
}

// recipes collects the vectors, so that each makes its own randomness.
type recipes struct {
	names []string
	make  map[string]func(*recipe)
}

func (l *recipes) add(name string, f func(*recipe)) {
	if _, ok := l.make[name]; ok {
		panic("two recipes of one name: " + name)
	}
	l.names = append(l.names, name)
	l.make[name] = f
}

// Without -record it sees to it that every recipe was recorded, and that nothing
// else was.
func TestRecordVectors(t *testing.T) {
	l := &recipes{make: make(map[string]func(*recipe))}
	openingVectors(l)
	parseVectors(l)
	sequenceVectors(l)
	forgedVectors(l)
	alteredVectors(l)
	files, err := filepath.Glob(vectorFolder + "/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !*record {
		var recorded []string
		for _, name := range files {
			recorded = append(recorded, strings.TrimSuffix(filepath.Base(name), ".txt"))
		}
		for _, name := range recorded {
			if l.make[name] == nil {
				t.Errorf("%s has no recipe", name)
			}
		}
		for _, name := range l.names {
			if !slices.Contains(recorded, name) {
				t.Errorf("%s is not recorded", name)
			}
		}
		return
	}
	for _, name := range files {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range l.names {
		t.Run(name, func(t *testing.T) {
			seed := fnv.New64a()
			seed.Write([]byte(name))
			cryptotest.SetGlobalRandom(t, seed.Sum64())
			r := newRecipe(t)
			l.make[name](r)
			text := r.v.Text()
			if _, err := spec.ParseVector(text); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(vectorFolder, name+".txt"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// ascending returns 32 bytes that count up from first.
func ascending(first byte) []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// typicalStream was opened at 2025-12-31T23:00:00Z.
var typicalStream = [StreamSize]byte{0x01, 0x9b, 0x76, 0xa3, 0xb9, 0x80, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9}

// directHeader is the header of newRecipe for direct use.
func (r *recipe) directHeader() {
	h := &r.header
	h.Stream, h.Sequence, h.Settled, h.Previous, h.ResealedAt, h.Void = [StreamSize]byte{}, 0, 0, 0, 0, nil
}

// newRecipe starts from a typical message.
func newRecipe(t *testing.T) *recipe {
	return &recipe{
		t:   t,
		key: &masterKey{secret: ascending(0)},
		header: Header{
			EncryptedAt: 1_767_225_600_000,
			ExpiresAt:   1_767_229_200_000,
			Stream:      typicalStream,
			Sequence:    4711,
			Settled:     4709,
			Previous:    4705,
			Void:        []Range{{4707, 4708}},
			KeyID:       "merge-warden/2026-01",
			Sender:      "router/eu-1",
			Origin:      "merge-warden",
		},
		sent: Context{
			MessageID:     "72d3162e-cc78-11e3-81ab-4c9367dc0958",
			SessionID:     "octo/repo#42",
			ContentType:   "application/json",
			CorrelationID: "req-7f",
			Attributes:    map[string]string{"event": "issues", "action": "opened"},
		},
		v: &spec.Vector{
			Domain:    spec.Queue,
			Plaintext: []byte(`{"action":"opened","issue":{"number":42}}`),
		},
	}
}

// seal seals the message; what the receiver gets is what was sent.
func (r *recipe) seal() {
	r.t.Helper()
	bound, err := BoundNames(r.sent.Attributes)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.header.Bound == nil && r.v.Domain == spec.Queue {
		r.header.Bound = bound
	}
	s, err := NewSealer(r.key, r.header.KeyID, r.header.Sender)
	if err != nil {
		r.t.Fatal(err)
	}
	v := r.v
	v.Key = r.key.secret
	if v.Domain == spec.App {
		v.Envelope, err = s.seal(&task{domainApp, true, &r.header, v.AssociatedData, r.padding}, nil, v.Plaintext)
	} else {
		data, errContext := AppendContext(nil, &r.sent, r.header.Bound)
		if errContext != nil {
			r.t.Fatal(errContext)
		}
		v.Envelope, err = s.SealPadded(nil, &r.header, v.Plaintext, data, r.padding)
		v.MessageID, v.SessionID, v.ContentType, v.CorrelationID = r.sent.MessageID, r.sent.SessionID, r.sent.ContentType, r.sent.CorrelationID
		v.Attributes = nil
		for _, name := range slices.Sorted(maps.Keys(r.sent.Attributes)) {
			v.Attributes = append(v.Attributes, spec.Attribute{Name: name, Value: r.sent.Attributes[name]})
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// opens records what must come out.
func (r *recipe) opens(comment string) {
	r.t.Helper()
	r.seal()
	r.outcome(comment)
}

func (r *recipe) outcome(comment string) {
	r.t.Helper()
	v := r.v
	m := mustParse(r.t, v.Envelope)
	okm, err := r.key.Derive(m.Sender, infoOf(m.KeyID, m.Salt[:]))
	if err != nil {
		r.t.Fatal(err)
	}
	v.Comment, v.Expect = comment, spec.Open
	v.EncryptedAt, v.NotBefore, v.ExpiresAt = m.EncryptedAt, m.NotBefore, m.ExpiresAt
	v.Padded, v.Stream, v.Sequence, v.Settled, v.Previous, v.ResealedAt = m.Padded, m.Stream[:], m.Sequence, m.Settled, m.Previous, m.ResealedAt
	for _, x := range m.Void {
		v.Void = append(v.Void, spec.Range(x))
	}
	v.KeyID, v.SenderID, v.Origin, v.Bound = m.KeyID, m.Sender, m.Origin, m.Bound
	v.CheckValue, v.SenderKey = checkValue(r.t, r.key.secret), senderSecret(r.key.secret, m.Sender)
	v.MessageKey = okm[:32]
	v.AdditionalData = additionalOf(r.t, m, v)
}

// infoOf is the info of a message key (qre1, Section 3.2).
func infoOf(keyID string, salt []byte) []byte {
	return slices.Concat([]byte(infoLabel), []byte{byte(len(keyID))}, []byte(keyID), salt)
}

// checkValue is qre1, Section 3.4.
func checkValue(t *testing.T, master []byte) []byte {
	t.Helper()
	b, err := hkdf.Expand(sha256.New, master, "QRE1/check/v1\x00", 16)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// additionalOf returns the additional data of a vector's message.
func additionalOf(t *testing.T, m *EncryptedMessage, v *spec.Vector) []byte {
	t.Helper()
	domain, data := domainApp, v.AssociatedData
	if v.Domain == spec.Queue {
		c, err := contextOf(v)
		if err != nil {
			t.Fatal(err)
		}
		domain, data = domainQueue, testData(t, c, m.Bound)
	}
	header, err := m.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat([]byte(domain), binary.BigEndian.AppendUint32(nil, uint32(len(header))), header, data)
}

// contextOf returns the fields that arrived, and an error if an attribute came
// twice.
func contextOf(v *spec.Vector) (*Context, error) {
	c := &Context{MessageID: v.MessageID, SessionID: v.SessionID, ContentType: v.ContentType, CorrelationID: v.CorrelationID}
	var twice error
	for _, a := range v.Attributes {
		if err := c.AddAttribute(a.Name, a.Value); err != nil {
			twice = err
		}
	}
	return c, twice
}

// fails records that the message, altered by then, must not open.
func (r *recipe) fails(layer spec.Layer, comment string) {
	v := r.v
	v.Comment, v.Expect, v.Layer = comment, spec.AuthenticationFailed, layer
	v.Plaintext = nil
}

// malformed records an envelope that must not parse.
func (r *recipe) malformed(field, comment string, envelope []byte) {
	r.v = &spec.Vector{Comment: comment, Expect: spec.InvalidEnvelope, Layer: spec.LayerParse, Field: field, Envelope: envelope}
	if field == "version" && len(envelope) > 4 {
		r.v.Expect = spec.UnsupportedVersion
	}
}

// manyNames returns 64 attributes, one of them with the longest name.
func manyNames() map[string]string {
	attrs := map[string]string{strings.Repeat("n", MaxName): "the longest name"}
	for i := range MaxBound - 1 {
		attrs[fmt.Sprintf("a%02d", i)] = fmt.Sprint(i)
	}
	return attrs
}

func everyByte() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func openingVectors(l *recipes) {
	opens := func(name, comment string, set func(*recipe)) {
		l.add("open-"+name, func(r *recipe) {
			set(r)
			r.opens(comment)
		})
	}
	opens("typical", "A webhook with session, correlation, content type and two attributes.", func(*recipe) {})
	opens("least", "The shortest envelope: one byte each of key ID, origin and message ID, no sender ID, no plaintext, all times zero, and a stream of zeros.", func(r *recipe) {
		r.header = Header{Sequence: 1, KeyID: "k", Origin: "q"}
		r.sent = Context{MessageID: "m"}
		r.v.Plaintext = nil
	})
	opens("plaintext-empty", "An empty plaintext with a full context.", func(r *recipe) { r.v.Plaintext = nil })
	opens("plaintext-block", "A plaintext of one block of AES.", func(r *recipe) { r.v.Plaintext = []byte("sixteen bytes ok") })
	opens("plaintext-every-byte", "A plaintext of all 256 bytes.", func(r *recipe) { r.v.Plaintext = everyByte() })
	opens("plaintext-kib", "A plaintext of 1000 bytes, which is no number of blocks.", func(r *recipe) {
		r.v.Plaintext = bytes.Repeat([]byte("0123456789"), 100)
	})
	opens("plaintext-sealed", "A plaintext that is an envelope itself, at least in its marker.", func(r *recipe) { r.v.Plaintext = []byte("QRE1\x01\x00") })
	opens("times", "All three times.", func(r *recipe) { r.header.NotBefore = r.header.EncryptedAt + 60_000 })
	opens("times-latest", "The latest times that are valid.", func(r *recipe) {
		r.header.EncryptedAt, r.header.NotBefore, r.header.ExpiresAt = MaxTime, MaxTime, MaxTime
	})
	opens("key-id-longest", "A key ID of 64 bytes.", func(r *recipe) { r.header.KeyID = strings.Repeat("0123456789abcdef", 4) })
	opens("key-id-alphabet", "A key ID of every sign that is neither letter nor digit, and of the ends of the ranges of those that are.", func(r *recipe) {
		r.header.KeyID = "._:/-azAZ09"
	})
	opens("origin-longest", "An origin of 255 bytes.", func(r *recipe) { r.header.Origin = strings.Repeat("q", MaxOrigin) })
	opens("origin-utf8", "An origin of characters of one to four bytes in UTF-8, not normalized.", func(r *recipe) {
		r.header.Origin = "q\u00e9e\u0301\u961f\u5217\U0001f4ec"
	})
	opens("origin-control", "An origin with a byte of zero and a line feed: well-formed UTF-8.", func(r *recipe) { r.header.Origin = "a\x00b\n" })
	opens("context-message-id", "A message ID and nothing else.", func(r *recipe) { r.sent = Context{MessageID: r.sent.MessageID} })
	opens("context-no-session", "Correlation without session: the entries keep their tags.", func(r *recipe) {
		r.sent.SessionID, r.sent.Attributes = "", nil
	})
	opens("context-bytes", "Fields that are not UTF-8, and a message ID that looks like an entry.", func(r *recipe) {
		r.sent.MessageID = "\x02\x00\x00\x00\x01s"
		r.sent.SessionID = "\xff\x00"
		r.sent.ContentType = " %=\n"
		r.sent.CorrelationID = "\xed\xa0\x80"
	})
	opens("attributes-values", "Attributes with an empty value, with bytes that are not UTF-8, and with a long value.", func(r *recipe) {
		r.sent.Attributes = map[string]string{"empty": "", "bytes": "\x00\xff\xfe", "long": strings.Repeat("v", 300)}
	})
	opens("attributes-order", "Names in the order of their bytes, which is not that of UTF-16, of a locale, or of the lengths.", func(r *recipe) {
		r.sent.Attributes = map[string]string{"b": "1", "B": "2", "a": "3", "a\x00": "4", "aa": "5", "\u00e9": "6", "\ufffd": "7", "\U00010000": "8", "\xff": "9"}
	})
	opens("attributes-most", "64 attributes, one of them with a name of 255 bytes.", func(r *recipe) { r.sent.Attributes = manyNames() })
	opens("app", "Direct use with associated data, without bound attributes.", func(r *recipe) {
		r.v.Domain, r.v.AssociatedData = spec.App, []byte("backup of 2026-01-01, part 3")
		r.directHeader()
	})
	opens("app-empty", "Direct use with no associated data, by a holder of the master key.", func(r *recipe) {
		r.v.Domain, r.header.Sender = spec.App, ""
		r.directHeader()
	})
	opens("app-padded", "Direct use with padding.", func(r *recipe) {
		r.v.Domain, r.v.AssociatedData, r.padding = spec.App, []byte("part 3"), PadTo(64)
		r.directHeader()
	})
	opens("app-bound", "Direct use with a bound name in the header, which has no further meaning.", func(r *recipe) {
		r.v.Domain, r.header.Bound, r.v.AssociatedData = spec.App, []string{"event"}, everyByte()
		r.directHeader()
	})
	opens("times-backward", "not_before after expires_at: the format has no rule against it, and such a message is never delivered.", func(r *recipe) {
		r.header.NotBefore = r.header.ExpiresAt + 1
	})
	sequencedVectors(opens)
	paddedVectors(opens)

	l.add("open-attribute-added", func(r *recipe) {
		r.seal()
		r.v.Attributes = append(r.v.Attributes, spec.Attribute{Name: "added", Value: "on the way"})
		r.outcome("An attribute that is not bound arrived: it does not enter into the context.")
	})
	l.add("open-attributes-shuffled", func(r *recipe) {
		r.seal()
		slices.Reverse(r.v.Attributes)
		r.outcome("The attributes arrived in another order: that of the header counts.")
	})
	l.add("open-two-keys", func(r *recipe) {
		r.salamander(ascending(0), ascending(0x80))
		r.outcome("A ciphertext that opens under two keys, with the key that it commits to. See commitment-two-keys.")
	})
}

func sequencedVectors(opens func(name, comment string, set func(*recipe))) {
	opens("sender-empty", "No sender ID: a holder of the master key.", func(r *recipe) { r.header.Sender = "" })
	opens("sender-longest", "A sender ID of 64 bytes.", func(r *recipe) { r.header.Sender = strings.Repeat("0123456789abcdef", 4) })
	opens("sender-alphabet", "A sender ID of every sign that is neither letter nor digit, and of the ends of the ranges of those that are.", func(r *recipe) {
		r.header.Sender = "._:/-azAZ09"
	})
	opens("sender-key-id", "A sender ID that is the key ID.", func(r *recipe) { r.header.Sender = r.header.KeyID })
	opens("sequence-first", "The first message of a stream.", func(r *recipe) {
		r.header.Sequence, r.header.Settled, r.header.Previous, r.header.Void = 1, 0, 0, nil
	})
	opens("sequence-last", "The largest sequence, and the largest settled and previous below it.", func(r *recipe) {
		r.header.Sequence, r.header.Settled, r.header.Previous = MaxSequence, MaxSequence-1, MaxSequence-1
	})
	opens("stream-highest", "A stream of bytes 0xff: its time is not held against anything.", func(r *recipe) {
		for i := range r.header.Stream {
			r.header.Stream[i] = 0xff
		}
	})
	opens("void-none", "No void range.", func(r *recipe) { r.header.Void = nil })
	opens("void-eight", "Eight void ranges, the last of them up to settled.", func(r *recipe) {
		r.header.Void = []Range{{1, 1}, {3, 5}, {7, 7}, {100, 2000}, {2002, 2002}, {2004, 2004}, {2006, 3000}, {4709, 4709}}
	})
	opens("void-adjacent", "Two void ranges with nothing between them.", func(r *recipe) { r.header.Void = []Range{{1, 4}, {5, 9}} })
	opens("void-all", "Everything up to settled is void.", func(r *recipe) { r.header.Void = []Range{{1, 4709}} })
	opens("resealed", "A message that was sealed anew.", func(r *recipe) { r.header.ResealedAt = r.header.EncryptedAt + 86_400_000 })
	opens("resealed-before", "resealed_at before encrypted_at, by a clock that differs.", func(r *recipe) { r.header.ResealedAt = 1 })
}

func paddedVectors(opens func(name, comment string, set func(*recipe))) {
	opens("padded-padme", "Padding by Padme.", func(r *recipe) {
		r.padding, r.v.Plaintext = Padme, bytes.Repeat([]byte("0123456789"), 30)
	})
	opens("padded-to", "Padding to a multiple of 256 bytes.", func(r *recipe) { r.padding = PadTo(256) })
	opens("padded-exact", "The padded flag, and not one byte of padding.", func(r *recipe) { r.padding = PadTo(len(r.v.Plaintext) + 4) })
	opens("padded-empty", "An empty plaintext with padding.", func(r *recipe) { r.padding, r.v.Plaintext = PadTo(32), nil })
	opens("padded-empty-exact", "An empty plaintext with the padded flag: four bytes of zero.", func(r *recipe) { r.padding, r.v.Plaintext = PadTo(1), nil })
	opens("padded-zeros", "A plaintext that ends with zeros, with padding.", func(r *recipe) { r.padding, r.v.Plaintext = PadTo(64), []byte("a\x00\x00\x00") })
}

// salamander makes the envelope of newSalamander, opened with the key first.
func (r *recipe) salamander(first, second []byte) {
	r.t.Helper()
	a, b := &masterKey{secret: first}, &masterKey{secret: second}
	bound, err := BoundNames(r.sent.Attributes)
	if err != nil {
		r.t.Fatal(err)
	}
	r.seal() // for the fields that arrive
	r.header.Bound = bound
	copy(r.header.Salt[:], ascending(0x20))
	s := newSalamander(r.t, a, b, r.header, testData(r.t, &r.sent, bound))
	r.key, r.v.Key, r.v.Envelope, r.v.Plaintext = a, first, s.body, s.plaintexts[0]
}
