package spec_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/spec"
)

// implementation is one of the specification in another language, in the folder
// interop, written from the document alone.
type implementation struct {
	name, program string
	install       string   // what to do if the program is missing
	files         []string // the first is the program's argument
}

var implementations = []implementation{
	{"node", "node", "install node 20 or later", []string{"interop/vectors.mjs", "interop/qre1.mjs"}},
	{"python", "python3", "install python 3.9 or later", []string{"interop/vectors.py", "interop/qre1.py", "interop/gcm.py"}},
}

var python = &implementations[1]

// run lets the implementation work on the vectors in a folder, and returns a decoder
// of what it prints. The test is skipped if its program is missing, unless
// QRT_REQUIRE_PEERS=1.
func (i *implementation) run(t *testing.T, command, folder string) *json.Decoder {
	t.Helper()
	path, err := exec.LookPath(i.program)
	if err != nil {
		if os.Getenv("QRT_REQUIRE_PEERS") == "1" {
			t.Fatalf("%s is missing: %s", i.program, i.install)
		}
		t.Skipf("%s is missing: its implementation of the specification is not run", i.program)
	}
	// The go command's cache of test results knows of files that the test itself
	// opens, and not of those that another program reads.
	for _, name := range i.files {
		if _, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), path, i.files[0], command, folder)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", i.program, err, stderr.Bytes())
	}
	return json.NewDecoder(bytes.NewReader(out))
}

// verdict is what another implementation says of a vector.
type verdict struct {
	Name, Verdict                                                string
	Padded                                                       bool
	EncryptedAt, NotBefore, ExpiresAt                            string
	Stream, Sequence, Settled, Previous, ResealedAt              string
	Void                                                         []string
	KeyID, SenderID, Origin                                      string
	Bound                                                        []string
	CheckValue, SenderKey, MessageKey, AdditionalData, Plaintext string
	Envelope                                                     string
}

// want is what it has to say.
func want(v *spec.Vector) *verdict {
	w := &verdict{Name: v.Name, Verdict: string(v.Expect)}
	if v.Expect != spec.Open {
		return w
	}
	text := func(s string) string { return hex.EncodeToString([]byte(s)) }
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	w.Padded = v.Padded
	w.EncryptedAt, w.NotBefore, w.ExpiresAt = number(uint64(v.EncryptedAt)), number(uint64(v.NotBefore)), number(uint64(v.ExpiresAt))
	w.Stream, w.Sequence, w.Settled, w.Previous, w.ResealedAt = hex.EncodeToString(v.Stream), number(v.Sequence), number(v.Settled), number(v.Previous), number(uint64(v.ResealedAt))
	w.Void, w.Bound = []string{}, []string{}
	for _, r := range v.Void {
		w.Void = append(w.Void, number(r.First)+"-"+number(r.Last))
	}
	for _, name := range v.Bound {
		w.Bound = append(w.Bound, text(name))
	}
	w.KeyID, w.SenderID, w.Origin = text(v.KeyID), text(v.SenderID), text(v.Origin)
	w.CheckValue, w.SenderKey, w.MessageKey = hex.EncodeToString(v.CheckValue), hex.EncodeToString(v.SenderKey), hex.EncodeToString(v.MessageKey)
	w.AdditionalData, w.Plaintext = hex.EncodeToString(v.AdditionalData), hex.EncodeToString(v.Plaintext)
	return w
}

// Every implementation comes to the verdict of every vector, and to each of the
// values in it.
func TestInteropOpen(t *testing.T) {
	for _, i := range implementations {
		t.Run(i.name, func(t *testing.T) { judged(t, load(t), i.run(t, "open", "vectors")) })
	}
}

// judged holds what was printed against the vectors.
func judged(t *testing.T, list []*spec.Vector, out *json.Decoder) {
	t.Helper()
	for _, v := range list {
		var got verdict
		if err := out.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if w := want(v); !reflect.DeepEqual(&got, w) {
			t.Errorf("%s:\nthe other implementation says %+v\nrecorded is %+v", v.Name, got, *w)
		}
	}
	if out.More() {
		t.Error("the other implementation judged more vectors than there are")
	}
}

// What another implementation seals opens here.
func TestInteropSeal(t *testing.T) {
	for _, i := range implementations {
		t.Run(i.name, func(t *testing.T) { sealedElsewhere(t, i.run(t, "seal", "vectors")) })
	}
}

func sealedElsewhere(t *testing.T, out *json.Decoder) {
	t.Helper()
	o := envelope.NewOpener(nil)
	opened := 0
	for _, v := range load(t) {
		if v.Expect != spec.Open {
			continue
		}
		var got verdict
		if err := out.Decode(&got); err != nil {
			t.Fatal(err)
		}
		body, err := hex.DecodeString(got.Envelope)
		if err != nil || got.Name != v.Name {
			t.Fatalf("%s: %s, %v", v.Name, got.Name, err)
		}
		m, err := envelope.Parse(body)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if m.Padded != v.Padded || m.Sequence != v.Sequence || m.Sender != v.SenderID || len(m.Void) != len(v.Void) {
			t.Errorf("%s: padded %v, sequence %d, sender %q, void ranges %v", v.Name, m.Padded, m.Sequence, m.Sender, m.Void)
		}
		data, open := v.AssociatedData, o.OpenApp
		if v.Domain == spec.Queue {
			open = o.Open
			if data, err = envelope.AppendContext(nil, arrived(t, v), m.Bound); err != nil {
				t.Errorf("%s: %v", v.Name, err)
				continue
			}
			if len(m.Bound) != len(v.Attributes) {
				t.Errorf("%s: %d attributes of %d are bound", v.Name, len(m.Bound), len(v.Attributes))
			}
		}
		plaintext, err := open(nil, &m, masterKey(t, v.Key), data)
		if err != nil || !bytes.Equal(plaintext, v.Plaintext) {
			t.Errorf("%s: %x, %v", v.Name, plaintext, err)
			continue
		}
		opened++
	}
	if opened < 20 {
		t.Errorf("only %d messages opened", opened)
	}
}

// What is sealed here anew, with random keys, salts, nonces and fields, opens
// there.
func TestInteropSealedHere(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	var list []*spec.Vector
	for i := range 40 {
		v := sealHere(t, r)
		v.Name = fmt.Sprintf("here-%02d", i)
		if _, err := spec.ParseVector(v.Text()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, v.Name+".txt"), []byte(v.Text()), 0o600); err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	for _, i := range implementations {
		t.Run(i.name, func(t *testing.T) { judged(t, list, i.run(t, "open", dir)) })
	}
}

// sealHere seals a random message and says what must come out.
func sealHere(t *testing.T, r *rand.Rand) *spec.Vector {
	t.Helper()
	text := func(most int) string {
		b := make([]byte, r.IntN(most+1))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	id := func(least int) string {
		b := make([]byte, least+r.IntN(20))
		for i := range b {
			b[i] = "abcXYZ019._:/-"[r.IntN(14)]
		}
		return string(b)
	}
	v := &spec.Vector{
		Comment: "Sealed by a test.", Expect: spec.Open, Domain: spec.Queue,
		Key: []byte(strings.Repeat("k", 31) + string(rune('a'+r.IntN(26)))), MessageID: "m" + text(40), SessionID: text(20), ContentType: text(20), CorrelationID: text(20),
		EncryptedAt: r.Int64N(envelope.MaxTime), NotBefore: r.Int64N(envelope.MaxTime), ExpiresAt: r.Int64N(envelope.MaxTime), ResealedAt: r.Int64N(envelope.MaxTime),
		Stream: []byte(strings.Repeat(string(rune('a'+r.IntN(26))), 16)), Sequence: 100 + r.Uint64N(envelope.MaxSequence-100),
		KeyID: id(1), SenderID: id(0), Origin: id(1), Plaintext: []byte(text(300)),
	}
	v.Settled, v.Previous = v.Sequence-1-r.Uint64N(50), r.Uint64N(v.Sequence)
	for i := range r.Uint64N(9) {
		v.Void = append(v.Void, spec.Range{First: 1 + 5*i, Last: 1 + 5*i + r.Uint64N(5)})
	}
	h := envelope.Header{
		EncryptedAt: v.EncryptedAt, NotBefore: v.NotBefore, ExpiresAt: v.ExpiresAt, Stream: [16]byte(v.Stream), Sequence: v.Sequence,
		Settled: v.Settled, Previous: v.Previous, ResealedAt: v.ResealedAt, Origin: v.Origin,
	}
	for _, x := range v.Void {
		h.Void = append(h.Void, envelope.Range(x))
	}
	attrs := make(map[string]string)
	for range r.IntN(5) {
		attrs["a"+text(10)] = text(30)
	}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		v.Attributes = append(v.Attributes, spec.Attribute{Name: name, Value: attrs[name]})
		h.Bound, v.Bound = append(h.Bound, name), append(v.Bound, name)
	}
	data, err := envelope.AppendContext(nil, arrived(t, v), h.Bound)
	if err != nil {
		t.Fatal(err)
	}
	padding := []envelope.Padding{envelope.NoPadding, envelope.Padme, envelope.PadTo(64)}[r.IntN(3)]
	v.Padded = padding != envelope.NoPadding
	key := masterKey(t, v.Key)
	s, err := envelope.NewSealer(key, v.KeyID, v.SenderID)
	if err != nil {
		t.Fatal(err)
	}
	if v.Envelope, err = s.SealPadded(nil, &h, v.Plaintext, data, padding); err != nil {
		t.Fatal(err)
	}
	// What a receiver derives, by other means than package envelope.
	m, err := envelope.Parse(v.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	header, err := m.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	v.SenderKey = expand(t, v.Key, "QRE1/sender/v1\x00"+string([]byte{byte(len(v.SenderID))})+v.SenderID, 32)
	v.CheckValue = expand(t, v.Key, "QRE1/check/v1\x00", 16)
	v.MessageKey = expand(t, v.SenderKey, "QRE1/A256GCM-HKDF-SHA256-COMMIT/v1\x00"+string([]byte{byte(len(v.KeyID))})+v.KeyID+string(m.Salt[:]), 32)
	v.AdditionalData = slices.Concat([]byte("QRE1-AAD-v1\x00\x00\x00"), []byte{byte(len(header) >> 8), byte(len(header))}, header, data)
	return v
}

func expand(t *testing.T, key []byte, info string, n int) []byte {
	t.Helper()
	b, err := hkdf.Expand(sha256.New, key, info, n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// An implementation that leaves out one check fails at a vector, whichever check
// it is.
func TestInteropWithout(t *testing.T) {
	names := make(map[string]bool)
	for _, v := range load(t) {
		names[v.Name] = true
	}
	out := python.run(t, "without", "vectors")
	checks := 0
	for out.More() {
		var got struct {
			Check   string
			Vectors []string
		}
		if err := out.Decode(&got); err != nil {
			t.Fatal(err)
		}
		checks++
		if len(got.Vectors) == 0 {
			t.Errorf("without the check %q, no vector fails", got.Check)
		}
		for _, name := range got.Vectors {
			if !names[name] {
				t.Errorf("without the check %q, %s fails, which is no vector", got.Check, name)
			}
		}
	}
	if checks < 40 {
		t.Errorf("only %d checks were left out", checks)
	}
}

func load(t *testing.T) []*spec.Vector {
	t.Helper()
	list, err := spec.Vectors()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("no vectors")
	}
	return list
}

func arrived(t *testing.T, v *spec.Vector) *envelope.Context {
	t.Helper()
	c := &envelope.Context{MessageID: v.MessageID, SessionID: v.SessionID, ContentType: v.ContentType, CorrelationID: v.CorrelationID}
	for _, a := range v.Attributes {
		if err := c.AddAttribute(a.Name, a.Value); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func masterKey(t *testing.T, secret []byte) *keys.Key {
	t.Helper()
	k, err := keys.New("k", secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
