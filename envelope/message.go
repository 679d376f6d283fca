package envelope

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Nonce is the nonce of AES-256-GCM, drawn at random for each message.
type Nonce [NonceSize]byte

// AuthenticationTag is the tag of AES-256-GCM.
type AuthenticationTag [TagSize]byte

// EncryptedMessage is an envelope taken apart. [Parse] makes valid ones. Nothing
// in it is authentic before an Opener opened it.
//
// It may be copied; its fields are to be read, not changed: Bytes and Ciphertext
// share memory with what was parsed. A program that seals by other means (a
// hardware module) may fill in the exported fields of a zero value instead.
type EncryptedMessage struct {
	Header

	Nonce      Nonce
	Ciphertext []byte // as long as the plaintext; without nonce and tag
	Tag        AuthenticationTag

	raw     []byte // the whole envelope; nil unless parsed
	nonceAt int    // where in raw the header ends
}

// IsSealed reports whether body begins with Marker. Such a body is an envelope,
// whole or broken, and never plaintext.
func IsSealed(body []byte) bool {
	return len(body) >= len(Marker) && string(body[:len(Marker)]) == Marker
}

// Parse takes an envelope apart. It needs no key and proves nothing: it says what
// the bytes claim. The result keeps body, which must not be changed as long as
// the result is used.
//
// It fails with ErrUnsupportedVersion for a version other than 1, whatever
// follows, and with ErrInvalidEnvelope, naming the field, for everything else
// that is not exactly one envelope.
func Parse(body []byte) (EncryptedMessage, error) {
	m := EncryptedMessage{raw: body}
	if err := m.parse(); err != nil {
		if errors.Is(err, ErrUnsupportedVersion) {
			return EncryptedMessage{}, err
		}
		return EncryptedMessage{}, fmt.Errorf("%w: %w", ErrInvalidEnvelope, err)
	}
	return m, nil
}

func (m *EncryptedMessage) parse() error {
	body := m.raw
	if !IsSealed(body) {
		return fmt.Errorf("marker: the body does not begin with %s", Marker)
	}
	// Another version may be laid out in another way: nothing else is looked at.
	if len(body) > len(Marker) && body[len(Marker)] != Version1 {
		return fmt.Errorf("%w: %d: this receiver knows %d", ErrUnsupportedVersion, body[len(Marker)], Version1)
	}
	switch {
	case len(body) == len(Marker):
		return errors.New("version: cut off")
	case len(body) == len(Marker)+1:
		return errors.New("flags: cut off")
	case body[len(Marker)+1] != 0:
		return fmt.Errorf("flags: 0x%02x: none is defined", body[len(Marker)+1])
	}
	at := len(Marker) + 2
	for i, ms := range [...]*int64{&m.EncryptedAt, &m.NotBefore, &m.ExpiresAt} {
		if len(body) < at+8 {
			return fmt.Errorf("%s: cut off", timeFields[i])
		}
		u := binary.BigEndian.Uint64(body[at:])
		if u > MaxTime {
			return fmt.Errorf("%s: past the year 9999", timeFields[i])
		}
		*ms = int64(u)
		at += 8
	}

	// The strings are slices of one copy of the part that holds them.
	end, count, err := stringsEnd(body)
	if err != nil {
		return err
	}
	text := string(body[fixedSize:end])
	m.KeyID, text = cutShort(text)
	m.Origin, text = cutShort(text)
	text = text[1:] // the number of names
	if count > 0 {
		m.Bound = make([]string, count)
		for i := range m.Bound {
			m.Bound[i], text = cutShort(text)
		}
	}
	if err := m.check(); err != nil {
		return err
	}

	rest := body[end:]
	for i, dst := range [...][]byte{m.Salt[:], m.Commitment[:], m.Nonce[:]} {
		if len(rest) < len(dst) {
			return fmt.Errorf("%s: cut off", [...]string{"salt", "key commitment", "nonce"}[i])
		}
		rest = rest[copy(dst, rest):]
	}
	if len(rest) < TagSize {
		return errors.New("authentication tag: cut off")
	}
	n := len(rest) - TagSize
	if err := checkSize("ciphertext", int64(n)); err != nil {
		return err
	}
	m.nonceAt = len(body) - len(rest) - NonceSize
	m.Ciphertext = rest[:n:n]
	copy(m.Tag[:], rest[n:])
	return nil
}

// stringsEnd returns where key ID, origin and names end in body, and the number
// of names, having checked that all of them lie within body.
func stringsEnd(body []byte) (end, count int, err error) {
	end = fixedSize
	short := func() bool {
		if end >= len(body) {
			return false
		}
		end += 1 + int(body[end])
		return end <= len(body)
	}
	if !short() {
		return 0, 0, errors.New("key ID: cut off")
	}
	if !short() {
		return 0, 0, errors.New("origin: cut off")
	}
	if end >= len(body) {
		return 0, 0, errors.New("bound attributes: cut off")
	}
	count = int(body[end])
	if count > MaxBound {
		return 0, 0, fmt.Errorf("bound attributes: %d: at most %d", count, MaxBound)
	}
	end++
	for i := range count {
		if !short() {
			return 0, 0, fmt.Errorf("bound attributes: name %d: cut off", i)
		}
	}
	return end, count, nil
}

// cutShort cuts a string and its length byte off s; that they are there was
// checked.
func cutShort(s string) (value, rest string) {
	n := 1 + int(s[0])
	return s[1:n], s[n:]
}

// Bytes returns the whole envelope: what was parsed, byte for byte. For a message
// whose fields were filled in by hand it is their encoding, and nil when the
// header is not valid.
func (m *EncryptedMessage) Bytes() []byte {
	if m.raw != nil {
		return m.raw
	}
	b := make([]byte, 0, SealedSize(&m.Header, len(m.Ciphertext)))
	b, err := m.AppendTo(b) // of the Header
	if err != nil {
		return nil
	}
	b = append(b, m.Nonce[:]...)
	b = append(b, m.Ciphertext...)
	return append(b, m.Tag[:]...)
}

// ReplayID identifies this sealing among all (qre1, Section 6.3): the length of
// the key ID in one byte, the key ID, the salt, the nonce; at most 109 bytes, not
// printable. It may be remembered only once the message was authenticated.
func (m *EncryptedMessage) ReplayID() string {
	var b [1 + MaxKeyID + SaltSize + NonceSize]byte
	id := appendShort(b[:0], m.KeyID)
	id = append(id, m.Salt[:]...)
	return string(append(id, m.Nonce[:]...))
}
