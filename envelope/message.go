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

	raw  []byte // the whole envelope; nil unless parsed
	head string // a copy of its header
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
	end, count, err := layout(body)
	if err != nil {
		return err
	}
	// One copy of the header holds its strings, and is what Open authenticates:
	// what was parsed is what is believed, even if body changes in between.
	nonceAt := end + SaltSize + CommitmentSize
	m.head = string(body[:nonceAt])

	for i, ms := range [...]*int64{&m.EncryptedAt, &m.NotBefore, &m.ExpiresAt} {
		u := binary.BigEndian.Uint64(body[len(Marker)+2+8*i:])
		if u > MaxTime {
			return fmt.Errorf("%s: past the year 9999", timeFields[i])
		}
		*ms = int64(u)
	}
	text := m.head[fixedSize:end]
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
	copy(m.Salt[:], m.head[end:])
	copy(m.Commitment[:], m.head[end+SaltSize:])
	tagAt := len(body) - TagSize
	copy(m.Nonce[:], body[nonceAt:])
	m.Ciphertext = body[nonceAt+NonceSize : tagAt : tagAt]
	copy(m.Tag[:], body[tagAt:])
	return nil
}

// layout checks that marker, version and flags are as they must be and that every
// field lies within body. It returns where the names of the bound attributes end,
// and how many there are.
func layout(body []byte) (end, count int, err error) {
	switch {
	case !IsSealed(body):
		return 0, 0, fmt.Errorf("marker: the body does not begin with %s", Marker)
	case len(body) == len(Marker):
		return 0, 0, errors.New("version: cut off")
	case body[len(Marker)] != Version1:
		// Another version may be laid out in another way: nothing else is looked at.
		return 0, 0, fmt.Errorf("%w: %d: this receiver knows %d", ErrUnsupportedVersion, body[len(Marker)], Version1)
	case len(body) == len(Marker)+1:
		return 0, 0, errors.New("flags: cut off")
	case body[len(Marker)+1] != 0:
		return 0, 0, fmt.Errorf("flags: 0x%02x: none is defined", body[len(Marker)+1])
	}
	end = len(Marker) + 2
	for _, field := range timeFields {
		if end += 8; end > len(body) {
			return 0, 0, fmt.Errorf("%s: cut off", field)
		}
	}
	short := func() bool { // a length byte and as many bytes
		if end < len(body) {
			end += int(body[end])
		}
		end++
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
	switch n := len(body) - end; {
	case n < SaltSize:
		return 0, 0, errors.New("salt: cut off")
	case n < SaltSize+CommitmentSize:
		return 0, 0, errors.New("key commitment: cut off")
	case n < SaltSize+CommitmentSize+NonceSize:
		return 0, 0, errors.New("nonce: cut off")
	case n < SaltSize+CommitmentSize+NonceSize+TagSize:
		return 0, 0, errors.New("authentication tag: cut off")
	default:
		err = checkSize("ciphertext", int64(n-(SaltSize+CommitmentSize+NonceSize+TagSize)))
	}
	return end, count, err
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
