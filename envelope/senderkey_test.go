package envelope

import (
	"bytes"
	"errors"
	"testing"
)

// The key of one sender neither seals nor opens as another, nor as a holder of the
// master key.
func TestSenderKeys(t *testing.T) {
	master := newMasterKey(1)
	own := &senderKey{testSender, senderSecret(master.secret, testSender)}
	h := testHeader(t)
	data := testData(t, &testContext, h.Bound)
	o := NewOpener(nil)

	// What it seals, the master key opens, and the other way round.
	for _, d := range [][2]Deriver{{own, master}, {master, own}, {own, own}} {
		b, err := newTestSealer(t, d[0]).Seal(nil, h, testPlaintext, data)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := o.Open(nil, mustParse(t, b), d[1], data); err != nil || !bytes.Equal(got, testPlaintext) {
			t.Errorf("%q, %v", got, err)
		}
	}
	for _, sender := range []string{"", "router/eu-2", testSender + "0"} {
		s, err := NewSealer(own, h.KeyID, sender)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := s.Seal(nil, h, testPlaintext, data); !errors.Is(err, errOtherSender) || b != nil {
			t.Errorf("sealed as %q: %v", sender, err)
		}
		if s, err = NewSealer(master, h.KeyID, sender); err != nil {
			t.Fatal(err)
		}
		b, err := s.Seal(nil, h, testPlaintext, data)
		if err != nil {
			t.Fatal(err)
		}
		// The message is none that failed: its key is not there.
		if got, err := o.Open(nil, mustParse(t, b), own, data); !errors.Is(err, errOtherSender) || errors.Is(err, ErrAuthenticationFailed) || got != nil {
			t.Errorf("opened what %q sealed: %q, %v", sender, got, err)
		}
		// With the sender ID changed to its own it still is another's.
		m := mustParse(t, b)
		m.Sender = testSender
		byHand := EncryptedMessage{Header: m.Header, Nonce: m.Nonce, Ciphertext: m.Ciphertext, Tag: m.Tag}
		for _, d := range []Deriver{own, master} {
			if got, err := o.Open(nil, &byHand, d, data); err != ErrAuthenticationFailed || got != nil { // the bare sentinel: opaque
				t.Errorf("what %q sealed opens as its own: %q, %v", sender, got, err)
			}
		}
	}
}
