package tests

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/queue-runtime/queue/envelope"
)

// hexBytes is a JSON string in hexadecimal.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	decoded, err := hex.DecodeString(s)
	*h = decoded
	return err
}

type aeadVector struct {
	ID         int      `json:"tcId"`
	Comment    string   `json:"comment"`
	Key        hexBytes `json:"key"`
	Nonce      hexBytes `json:"iv"`
	Additional hexBytes `json:"aad"`
	Plaintext  hexBytes `json:"msg"`
	Ciphertext hexBytes `json:"ct"`
	Tag        hexBytes `json:"tag"`
	Result     string   `json:"result"`
}

// aeadVectors returns the vectors with a key of 256 bits, a nonce of 96 and a tag
// of 128: what QRE1 uses.
func aeadVectors(t *testing.T) []aeadVector {
	t.Helper()
	text, err := fs.ReadFile(wycheproof.TestVectors, "aes_gcm_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Algorithm  string `json:"algorithm"`
		TestGroups []struct {
			KeySize int          `json:"keySize"`
			IVSize  int          `json:"ivSize"`
			TagSize int          `json:"tagSize"`
			Tests   []aeadVector `json:"tests"`
		} `json:"testGroups"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if file.Algorithm != "AES-GCM" {
		t.Fatalf("vectors of %q", file.Algorithm)
	}
	var list []aeadVector
	for _, g := range file.TestGroups {
		if g.KeySize == 256 && g.IVSize == 96 && g.TagSize == 128 {
			list = append(list, g.Tests...)
		}
	}
	if len(list) < 66 {
		t.Fatalf("%d vectors, want at least 66", len(list))
	}
	return list
}

// primitive is what the envelope seals with; TestPrimitiveIsTheEnvelopes shows it.
func primitive(t *testing.T, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

func TestWycheproof(t *testing.T) {
	valid, invalid := 0, 0
	for _, v := range aeadVectors(t) {
		aead := primitive(t, v.Key)
		sealed := slices.Concat(v.Nonce, v.Ciphertext, v.Tag)
		got, err := aead.Open(nil, nil, sealed, v.Additional)
		switch v.Result {
		case "valid":
			valid++
			if err != nil || !bytes.Equal(got, v.Plaintext) {
				t.Errorf("%d (%s): %x, %v, want %x", v.ID, v.Comment, got, err, v.Plaintext)
			}
			// It draws its own nonce, so sealing is checked by opening.
			again := aead.Seal(nil, nil, v.Plaintext, v.Additional)
			if bytes.Equal(again, sealed) {
				t.Errorf("%d: the nonce of the vector came again", v.ID)
			}
			if got, err := aead.Open(nil, nil, again, v.Additional); err != nil || !bytes.Equal(got, v.Plaintext) {
				t.Errorf("%d: sealed again: %x, %v", v.ID, got, err)
			}
		case "invalid":
			invalid++
			if err == nil {
				t.Errorf("%d (%s): opened", v.ID, v.Comment)
			}
		default:
			t.Errorf("%d: result %q: neither valid nor invalid", v.ID, v.Result)
		}
	}
	t.Logf("%d valid, %d invalid", valid, invalid)
	if valid < 39 || invalid < 27 {
		t.Errorf("%d valid and %d invalid vectors, want at least 39 and 27", valid, invalid)
	}
}

// fixedKey is a Deriver that gives a message key of the test's choice.
type fixedKey struct{ okm [64]byte }

func (k *fixedKey) Derive(string, []byte) ([64]byte, error) { return k.okm, nil }

// What envelopes seal with is the primitive that TestWycheproof tests: under each
// of the vectors' keys, what one seals the other opens.
func TestPrimitiveIsTheEnvelopes(t *testing.T) {
	m := newMessage(t)
	for _, v := range aeadVectors(t) {
		key := new(fixedKey)
		copy(key.okm[:], v.Key)
		copy(key.okm[32:], "the commitment, of thirty-two by")
		s, err := envelope.NewSealer(key, m.header.KeyID, "")
		if err != nil {
			t.Fatal(err)
		}
		body, err := s.Seal(nil, &m.header, v.Plaintext, v.Additional)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := envelope.Parse(body)
		if err != nil {
			t.Fatal(err)
		}
		header, err := parsed.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		// qre1, Section 4.1.
		additional := slices.Concat([]byte("QRE1-AAD-v1\x00"), []byte{0, 0, byte(len(header) >> 8), byte(len(header))}, header, v.Additional)
		aead := primitive(t, v.Key)
		got, err := aead.Open(nil, nil, body[len(header):], additional)
		if err != nil || !bytes.Equal(got, v.Plaintext) {
			t.Fatalf("%d: the primitive opens what the envelope sealed: %x, %v", v.ID, got, err)
		}
		body = aead.Seal(header, nil, v.Plaintext, additional)
		if parsed, err = envelope.Parse(body); err != nil {
			t.Fatal(err)
		}
		got, err = envelope.NewOpener(nil).Open(nil, &parsed, key, v.Additional)
		if err != nil || !bytes.Equal(got, v.Plaintext) {
			t.Fatalf("%d: the envelope opens what the primitive sealed: %x, %v", v.ID, got, err)
		}
	}
}
