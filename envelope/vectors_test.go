package envelope

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/spec"
)

// loadVectors fails where there are none.
func loadVectors(t testing.TB) []*spec.Vector {
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

func TestVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			if v.Layer == spec.LayerKey {
				return // package keys refuses it: its TestVectors
			}
			m, err := Parse(v.Envelope)
			if v.Layer == spec.LayerParse {
				checkParseError(t, v, err)
				return
			}
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			header, err := m.AppendTo(nil)
			if err != nil || !bytes.Equal(header, v.Envelope[:len(header)]) {
				t.Fatalf("the header encodes to %x, %v", header, err)
			}

			data := v.AssociatedData
			if v.Domain == spec.Queue {
				c, errTwice := contextOf(v)
				data, err = AppendContext(nil, c, m.Bound)
				err = cmp.Or(errTwice, err)
				if v.Layer == spec.LayerContext {
					if !errors.Is(err, ErrInvalidContext) {
						t.Fatalf("AppendContext: %v, want ErrInvalidContext", err)
					}
					return
				}
				if err != nil {
					t.Fatalf("AppendContext: %v", err)
				}
			}

			key := &masterKey{secret: v.Key}
			k, err := derive(key, m.KeyID, m.Sender, &m.Salt)
			if err != nil {
				t.Fatal(err)
			}
			if committed := k.commitment == m.Commitment; committed != (v.Layer != spec.LayerCommitment) {
				t.Errorf("the commitment matches: %v", committed)
			}
			o := NewOpener(nil)
			open := o.Open
			if v.Domain == spec.App {
				open = o.OpenApp
			}
			got, err := open([]byte{}, &m, key, data)
			if v.Expect != spec.Open {
				if err != ErrAuthenticationFailed || got != nil { // the bare sentinel: opaque
					t.Fatalf("%x, %v, want ErrAuthenticationFailed", got, err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, v.Plaintext) {
				t.Fatalf("%x, %v, want %x", got, err, v.Plaintext)
			}
			checkOpened(t, v, &m)
		})
	}
}

// checkParseError holds a parse error against what the vector expects.
func checkParseError(t *testing.T, v *spec.Vector, err error) {
	t.Helper()
	want := ErrInvalidEnvelope
	if v.Expect == spec.UnsupportedVersion {
		want = ErrUnsupportedVersion
	}
	if !errors.Is(err, want) {
		t.Fatalf("%v, want %v", err, want)
	}
	if errors.Is(err, ErrInvalidEnvelope) && errors.Is(err, ErrUnsupportedVersion) {
		t.Fatalf("%v is two errors", err)
	}
	if want == ErrInvalidEnvelope && !strings.HasPrefix(err.Error(), want.Error()+": "+v.Field+": ") {
		t.Errorf("%q does not name the field %s", err, v.Field)
	}
}

// checkOpened compares all that a vector says of an envelope that opens.
func checkOpened(t *testing.T, v *spec.Vector, m *EncryptedMessage) {
	t.Helper()
	if m.EncryptedAt != v.EncryptedAt || m.NotBefore != v.NotBefore || m.ExpiresAt != v.ExpiresAt {
		t.Errorf("times %d, %d, %d", m.EncryptedAt, m.NotBefore, m.ExpiresAt)
	}
	if m.KeyID != v.KeyID || m.Sender != v.SenderID || m.Origin != v.Origin || !slices.Equal(m.Bound, v.Bound) {
		t.Errorf("key ID %q, sender ID %q, origin %q, bound %q", m.KeyID, m.Sender, m.Origin, m.Bound)
	}
	if m.Padded != v.Padded || string(m.Stream[:]) != string(v.Stream) || m.Sequence != v.Sequence || m.Settled != v.Settled || m.Previous != v.Previous || m.ResealedAt != v.ResealedAt {
		t.Errorf("padded %v, stream %x, sequence %d, settled %d, previous %d, resealed_at %d", m.Padded, m.Stream, m.Sequence, m.Settled, m.Previous, m.ResealedAt)
	}
	if !slices.EqualFunc(m.Void, v.Void, func(a Range, b spec.Range) bool { return a == Range(b) }) {
		t.Errorf("void ranges %v", m.Void)
	}
	// With the sender key alone it opens as with the master key.
	data := v.AssociatedData
	open := NewOpener(nil).OpenApp
	if v.Domain == spec.Queue {
		c, err := contextOf(v)
		if err != nil {
			t.Fatal(err)
		}
		data, open = testData(t, c, m.Bound), NewOpener(nil).Open
	}
	if got, err := open(nil, m, &senderKey{v.SenderID, v.SenderKey}, data); err != nil || !bytes.Equal(got, v.Plaintext) {
		t.Errorf("with the sender key: %x, %v", got, err)
	}
	if got := additionalOf(t, m, v); !bytes.Equal(got, v.AdditionalData) {
		t.Errorf("additional data %x", got)
	}
	// With the recorded key and additional data, plain AES-GCM opens it.
	aead, err := newAEAD(v.MessageKey)
	if err != nil {
		t.Fatal(err)
	}
	got, err := aead.Open(nil, nil, slices.Concat(m.Nonce[:], m.Ciphertext, m.Tag[:]), v.AdditionalData)
	if v.Padded {
		got, _ = unpad(got)
	}
	if err != nil || !bytes.Equal(got, v.Plaintext) {
		t.Errorf("plain AES-GCM: %x, %v", got, err)
	}
}

// There is a vector for every way to fail, and for each field that can be wrong.
func TestVectorsComplete(t *testing.T) {
	missing := map[string]bool{
		"expect open": true, "expect invalid_envelope": true, "expect unsupported_version": true, "expect authentication_failed": true, "expect key_not_found": true,
		"layer parse": true, "layer context": true, "layer commitment": true, "layer authentication": true,
		"layer key": true, "layer use": true, "layer padding": true,
		"domain queue": true, "domain app": true, "domain app open": true,
	}
	for _, field := range []string{
		"marker", "version", "flags", "encrypted_at", "not_before", "expires_at", "stream", "sequence", "settled",
		"previous", "resealed_at", "void ranges", "key ID", "sender ID", "origin", "bound attributes",
		"salt", "key commitment", "nonce", "authentication tag",
	} {
		missing["field "+field] = true
	}
	for _, v := range loadVectors(t) {
		delete(missing, "expect "+string(v.Expect))
		delete(missing, "layer "+string(v.Layer))
		delete(missing, "field "+v.Field)
		delete(missing, "domain "+string(v.Domain))
		delete(missing, "domain "+string(v.Domain)+" "+string(v.Expect))
	}
	for what := range missing {
		t.Errorf("no vector with %s", what)
	}
}
