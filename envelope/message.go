package envelope

import (
	"errors"
	"fmt"
	"slices"
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
	Ciphertext []byte // as long as the plaintext with its padding; without nonce and tag
	Tag        AuthenticationTag

	raw  []byte // the whole envelope; nil unless parsed
	head string // a copy of its header
}

// IsSealed reports whether body begins with Marker. Such a body is an envelope,
// whole or broken, and never plaintext.
func IsSealed(body []byte) bool {
	return len(body) >= len(Marker) && string(body[:len(Marker)]) == Marker
}

// textMark is Marker in base64, without its last two bits.
const textMark = "UVJFM"

// IsSealedText reports whether text begins as an envelope of any version in
// base64 does (qre1, Section 7): UVJFM and a character from Q to f, which holds
// the last two bits of Marker and the first four of the version. On a transport
// for text, such a body is an envelope, whole or broken, and never plaintext.
func IsSealedText[T string | []byte](text T) bool {
	if len(text) <= len(textMark) || string(text[:len(textMark)]) != textMark {
		return false
	}
	c := text[len(textMark)]
	return 'Q' <= c && c <= 'Z' || 'a' <= c && c <= 'f'
}

// Parse takes an envelope apart. It needs no key and proves nothing: it says what
// the bytes claim. The result keeps body, which must not be changed as long as
// the result is used.
//
// It fails with ErrUnsupportedVersion for a version other than 1, whatever
// follows, and with ErrInvalidEnvelope, naming the field, for everything else
// that is not exactly one envelope.
func Parse(body []byte) (m EncryptedMessage, err error) {
	err = ParseInto(&m, body)
	return m, err
}

// ParseInto is Parse into m, which it overwrites: the memory of m.Void and m.Bound is used
// again. After an error m is zero.
func ParseInto(m *EncryptedMessage, body []byte) error {
	*m = EncryptedMessage{raw: body, Header: Header{Void: m.Void[:0], Bound: m.Bound[:0]}}
	err := m.parse()
	if err == nil {
		return nil
	}
	*m = EncryptedMessage{}
	if errors.Is(err, ErrUnsupportedVersion) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrInvalidEnvelope, err)
}

func (m *EncryptedMessage) parse() error {
	body := m.raw
	end, err := layout(body)
	if err != nil {
		return err
	}
	// One copy of the header holds its strings, and is what Open authenticates:
	// what was parsed is what is believed, even if body changes in between.
	nonceAt := end + SaltSize + CommitmentSize
	m.head = string(body[:nonceAt])
	m.parseFixed()
	text := m.parseVoid(m.head[fixedSize:])
	m.KeyID, text = cutShort(text)
	m.Sender, text = cutShort(text)
	m.Origin, text = cutShort(text)
	m.Bound = slices.Grow(m.Bound, int(text[0]))[:text[0]]
	text = text[1:]
	for i := range m.Bound {
		m.Bound[i], text = cutShort(text)
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

// parseFixed reads the fields of fixed size. A time that is too late for Header
// becomes negative, which check refuses.
func (m *EncryptedMessage) parseFixed() {
	m.Padded = m.head[flagsAt]&flagPadded != 0
	m.EncryptedAt, m.NotBefore, m.ExpiresAt = timeIn(m.head[encryptedAtAt:]), timeIn(m.head[notBeforeAt:]), timeIn(m.head[expiresAtAt:])
	copy(m.Stream[:], m.head[streamAt:])
	m.Sequence, m.Settled, m.Previous = number(m.head[sequenceAt:]), number(m.head[settledAt:]), number(m.head[previousAt:])
	m.ResealedAt = timeIn(m.head[resealedAtAt:])
}

// parseVoid reads the void ranges, and returns what follows them.
func (m *EncryptedMessage) parseVoid(text string) string {
	m.Void = slices.Grow(m.Void, int(text[0]))[:text[0]]
	text = text[1:]
	for i := range m.Void {
		m.Void[i] = Range{number(text), number(text[8:])}
		text = text[16:]
	}
	return text
}

// number reads 8 bytes, most significant first.
func number(s string) uint64 {
	_ = s[7]
	return uint64(s[0])<<56 | uint64(s[1])<<48 | uint64(s[2])<<40 | uint64(s[3])<<32 |
		uint64(s[4])<<24 | uint64(s[5])<<16 | uint64(s[6])<<8 | uint64(s[7])
}

// timeIn reads a time, and returns -1 for one that is past MaxTime.
func timeIn(s string) int64 {
	if u := number(s); u <= MaxTime {
		return int64(u)
	}
	return -1
}

// layout checks that marker, version and flags are as they must be and that every
// field lies within body. It returns where the names of the bound attributes end.
func layout(body []byte) (end int, err error) {
	switch {
	case !IsSealed(body):
		return 0, fmt.Errorf("marker: the body does not begin with %s", Marker)
	case len(body) == len(Marker):
		return 0, errors.New("version: cut off")
	case body[len(Marker)] != Version1:
		// Another version may be laid out in another way: nothing else is looked at.
		return 0, fmt.Errorf("%w: %d: this receiver knows %d", ErrUnsupportedVersion, body[len(Marker)], Version1)
	case len(body) == flagsAt:
		return 0, errors.New("flags: cut off")
	case body[flagsAt]&^flagPadded != 0:
		return 0, fmt.Errorf("flags: 0x%02x: only 0x%02x is defined", body[flagsAt], flagPadded)
	case len(body) < fixedSize:
		return 0, fixedCut(len(body))
	case len(body) == fixedSize:
		return 0, errors.New("void ranges: cut off")
	}
	void := int(body[fixedSize])
	if void > MaxVoid {
		return 0, fmt.Errorf("void ranges: %d: at most %d", void, MaxVoid)
	}
	if end = fixedSize + 1 + 16*void; end > len(body) {
		return 0, errors.New("void ranges: cut off")
	}
	if end, err = layoutNames(body, end); err != nil {
		return 0, err
	}
	switch n := len(body) - end; {
	case n < SaltSize:
		return 0, errors.New("salt: cut off")
	case n < SaltSize+CommitmentSize:
		return 0, errors.New("key commitment: cut off")
	case n < SaltSize+CommitmentSize+NonceSize:
		return 0, errors.New("nonce: cut off")
	case n < SaltSize+CommitmentSize+NonceSize+TagSize:
		return 0, errors.New("authentication tag: cut off")
	default:
		err = checkSize("ciphertext", int64(n-(SaltSize+CommitmentSize+NonceSize+TagSize)))
	}
	return end, err
}

// fixedCut names the field of fixed size in which a body of n bytes ends.
func fixedCut(n int) error {
	field := "resealed_at"
	for _, f := range [...]struct {
		name string
		end  int
	}{
		{"encrypted_at", notBeforeAt}, {"not_before", expiresAtAt}, {"expires_at", streamAt}, {"stream", sequenceAt},
		{"sequence", settledAt}, {"settled", previousAt}, {"previous", resealedAtAt},
	} {
		if n < f.end {
			field = f.name
			break
		}
	}
	return fmt.Errorf("%s: cut off", field)
}

// layoutNames is layout for the fields from the key ID, at end, to the bound
// attributes.
func layoutNames(body []byte, end int) (int, error) {
	short := func() bool { // a length byte and as many bytes
		if end < len(body) {
			end += int(body[end])
		}
		end++
		return end <= len(body)
	}
	for _, field := range [...]string{"key ID", "sender ID", "origin"} {
		if !short() {
			return 0, fmt.Errorf("%s: cut off", field)
		}
	}
	if end >= len(body) {
		return 0, errors.New("bound attributes: cut off")
	}
	count := int(body[end])
	if count > MaxBound {
		return 0, fmt.Errorf("bound attributes: %d: at most %d", count, MaxBound)
	}
	end++
	for i := range count {
		if !short() {
			return 0, fmt.Errorf("bound attributes: name %d: cut off", i)
		}
	}
	return end, nil
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

// Padding returns the Padding under which a plaintext of the same length gets the
// same length sealed anew: NoPadding unless the message is padded.
func (m *EncryptedMessage) Padding() Padding {
	if !m.Padded {
		return NoPadding
	}
	return PadTo(len(m.Ciphertext))
}
