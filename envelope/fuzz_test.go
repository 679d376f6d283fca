package envelope

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// FuzzParse: no input panics, what is refused is refused with one of two errors,
// and what parses encodes to the same bytes.
func FuzzParse(f *testing.F) {
	for _, v := range loadVectors(f) {
		f.Add(v.Envelope)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		kept := bytes.Clone(body)
		m, err := Parse(body)
		if !bytes.Equal(body, kept) {
			t.Fatal("Parse changed its input")
		}
		if err != nil {
			if errors.Is(err, ErrInvalidEnvelope) == errors.Is(err, ErrUnsupportedVersion) {
				t.Fatalf("%v is none or both of the two errors", err)
			}
			if errors.Is(err, ErrUnsupportedVersion) && (!IsSealed(body) || body[4] == Version1) {
				t.Fatalf("%v: of %x", err, body)
			}
			if m.raw != nil || m.KeyID != "" {
				t.Fatal("a message beside an error")
			}
			return
		}
		if !IsSealed(body) {
			t.Fatal("it parses and is not sealed")
		}
		if err := m.Validate(); err != nil {
			t.Fatalf("it parses and is not valid: %v", err)
		}
		header, err := m.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		if again := slices.Concat(header, m.Nonce[:], m.Ciphertext, m.Tag[:]); !bytes.Equal(again, body) {
			t.Fatalf("encoded again it is\n%x, was\n%x", again, body)
		}
		byHand := EncryptedMessage{Header: m.Header, Nonce: m.Nonce, Ciphertext: m.Ciphertext, Tag: m.Tag}
		if !bytes.Equal(byHand.Bytes(), body) || !bytes.Equal(m.Bytes(), body) {
			t.Fatal("Bytes differs")
		}
		if SealedSize(&m.Header, len(m.Ciphertext)) != len(body) {
			t.Fatal("SealedSize differs")
		}
	})
}

// FuzzOpen: no alteration of an envelope, or of what comes beside it, opens. The
// input is laid over a genuine one, so that chance begins close to what opens.
func FuzzOpen(f *testing.F) {
	key := newMasterKey(1)
	body := sealTest(f, key)
	o := NewOpener(&OpenerOptions{Entries: 4})
	if _, err := receive(o, key, body, &testContext); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{1}, uint16(0), uint16(0), "", "")
	f.Add([]byte{0x80}, uint16(len(body)-1), uint16(0), "", "")
	f.Add([]byte{}, uint16(0), uint16(1), "", "")
	f.Add([]byte{}, uint16(0), uint16(0), "x", "")
	f.Add([]byte{}, uint16(0), uint16(0), "", "y")
	for _, v := range loadVectors(f) {
		f.Add(v.Envelope, uint16(0), uint16(len(body)), "", "")
	}
	f.Fuzz(func(t *testing.T, xor []byte, at, cut uint16, id, value string) {
		// body without its last cut bytes; xor goes over what is there from at on,
		// and what is left of it behind the end.
		b := bytes.Clone(body[:len(body)-min(int(cut), len(body))])
		for _, x := range xor {
			if int(at) < len(b) {
				b[at] ^= x
				at++
			} else {
				b = append(b, x)
				at = uint16(len(b))
			}
		}
		c := testContext
		c.MessageID += id
		if value != "" {
			c.Attributes = map[string]string{"event": value, "action": testContext.Attributes["action"], "x-bin": testContext.Attributes["x-bin"]}
		}
		same := bytes.Equal(b, body) && id == "" && (value == "" || value == testContext.Attributes["event"])
		kept := bytes.Clone(b)
		got, err := receive(o, key, b, &c)
		switch {
		case !bytes.Equal(b, kept):
			t.Fatal("opening changed the envelope")
		case same && (err != nil || !bytes.Equal(got, testPlaintext)):
			t.Fatalf("the genuine one: %q, %v", got, err)
		case !same && (!rejected(err) || got != nil):
			t.Fatalf("opens: %q, %v\n%x", got, err, b)
		}
	})
}
