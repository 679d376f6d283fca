package attacktest

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// twoKeyBody returns an envelope for m that a seals and that GCM alone opens under
// a and under b, to two texts. The text under a is plaintext followed by a few
// bytes. GCM does not commit to its key (Dodis, Grubbs, Ristenpart, Woodage: Fast
// Message Franking, CRYPTO 2018, Section 3), so the envelope's key commitment must
// make the difference. twoKeyBody checks that GCM opens the ciphertext under both
// keys, and that the envelope opens under a.
func twoKeyBody(m *driver.Message, origin string, a, b *keys.Key, plaintext []byte) ([]byte, error) {
	e := envelope.EncryptedMessage{Header: envelope.Header{
		Sequence:    1,
		EncryptedAt: time.Now().UnixMilli(),
		KeyID:       string(a.ID()),
		Origin:      origin,
	}}
	// crypto/rand.Read never fails: it ends the process instead.
	_, _ = rand.Read(e.Salt[:])
	_, _ = rand.Read(e.Nonce[:])
	var key [2][32]byte
	for i, k := range []*keys.Key{a, b} {
		okm, err := k.Derive(e.Sender, derivationInfo(&e.Header))
		if err != nil {
			return nil, err
		}
		copy(key[i][:], okm[:32])
		if i == 0 {
			copy(e.Commitment[:], okm[32:])
		}
	}
	h, err := e.AppendTo(nil)
	if err != nil {
		return nil, err
	}
	// qre1, Section 4.1.
	additional := append([]byte("QRE1-AAD-v1\x00"), binary.BigEndian.AppendUint32(nil, uint32(len(h)))...) //nolint:gosec // G115: a header is short
	additional = append(additional, h...)
	contextData, err := envelope.AppendContext(nil, &envelope.Context{MessageID: m.ID, ContentType: m.ContentType}, nil)
	if err != nil {
		return nil, err
	}
	additional = append(additional, contextData...)

	// Pad to whole blocks, seal with a, and append one block of ciphertext that
	// makes the tags under both keys equal.
	padded := bytes.Clone(plaintext)
	for len(padded)%aes.BlockSize != 0 {
		padded = append(padded, ' ')
	}
	first, err := newGCM(key[0])
	if err != nil {
		return nil, err
	}
	second, err := newGCM(key[1])
	if err != nil {
		return nil, err
	}
	c := first.stream(e.Nonce, padded)
	c = append(c, make([]byte, aes.BlockSize)...)
	// With the free block X zero the tags are t1 and t2; X adds X * H^2 to each.
	t1, t2 := first.tag(e.Nonce, additional, c), second.tag(e.Nonce, additional, c)
	factor := first.h.times(first.h).plus(second.h.times(second.h))
	x := t1.plus(t2).times(factor.inverse())
	x.put(c[len(c)-aes.BlockSize:])
	e.Ciphertext = c
	first.tag(e.Nonce, additional, c).put(e.Tag[:])

	sealed := slices.Concat(e.Nonce[:], c, e.Tag[:])
	for _, g := range []*gcm{first, second} {
		if _, err := g.aead.Open(nil, nil, sealed, additional); err != nil {
			return nil, errors.New("the ciphertext does not open under both keys")
		}
	}
	body := e.Bytes()
	parsed, err := envelope.Parse(body)
	if err != nil {
		return nil, err
	}
	if _, err := envelope.NewOpener(nil).Open(nil, &parsed, a, contextData); err != nil {
		return nil, errors.New("the envelope does not open under the key that it commits to")
	}
	return body, nil
}

// derivationInfo is the info input of the key derivation (qre1, Section 3.2).
func derivationInfo(h *envelope.Header) []byte {
	info := append([]byte("QRE1/A256GCM-HKDF-SHA256-COMMIT/v1\x00"), byte(len(h.KeyID))) //nolint:gosec // G115: at most 64
	info = append(info, h.KeyID...)
	return append(info, h.Salt[:]...)
}
