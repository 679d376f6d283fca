package sqsqueue

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/queue-runtime/queue/driver"
)

// How a body travels, the value of the attribute attrEncoding. A body without
// the attribute is text and stands as it is.
const (
	encodingSealed = "qre1-base64" // a QRE1 envelope in base64
	encodingBinary = "base64"      // any other bytes that are not text
	encodingEmpty  = "empty"       // no bytes: SQS refuses an empty body
)

// emptyBody stands for no bytes, with encodingEmpty.
const emptyBody = "-"

// sealedMarker begins a QRE1 envelope (qre1, Section 2.1).
const sealedMarker = "QRE1"

// sealedText begins every QRE1 envelope in base64. Text that begins so is taken for a
// sealed body even if attrEncoding is gone, so that removing the attribute does not
// turn ciphertext into plaintext.
const sealedText = "UVJFM"

// isSealedText reports whether text begins as an envelope of any version does in base64:
// sealedText and a character from Q to f, which holds the last two bits of the marker and
// the first four of the version (qre1, Section 7).
func isSealedText[T string | []byte](text T) bool {
	n := len(sealedText)
	if len(text) <= n || string(text[:n]) != sealedText {
		return false
	}
	c := text[n]
	return c >= 'Q' && c <= 'Z' || c >= 'a' && c <= 'f'
}

// base64Body is the one form that is accepted: standard alphabet, padded, no
// line breaks and no stray bits, so that a body has one encoding only.
var base64Body = base64.StdEncoding.Strict()

// encodeBody returns the text for a body and the value of attrEncoding for it,
// "" for none.
func encodeBody(m *driver.Message) (text, encoding string) {
	switch {
	case len(m.Body) == 0:
		return emptyBody, encodingEmpty
	case m.Sealed:
		return base64Body.EncodeToString(m.Body), encodingSealed
	case validText(m.Body) && !isSealedText(m.Body):
		return string(m.Body), ""
	}
	return base64Body.EncodeToString(m.Body), encodingBinary
}

// bodySize returns what encodeBody's text and encoding count, without making
// the text.
func bodySize(m *driver.Message) (bytes int, encoding string) {
	switch {
	case len(m.Body) == 0:
		return len(emptyBody), encodingEmpty
	case m.Sealed:
		return base64Body.EncodedLen(len(m.Body)), encodingSealed
	case validText(m.Body) && !isSealedText(m.Body):
		return len(m.Body), ""
	}
	return base64Body.EncodedLen(len(m.Body)), encodingBinary
}

// decodeBody undoes encodeBody. If the text is not in the encoding, it returns the text
// itself and ok is false.
func decodeBody(text, encoding string) (body []byte, sealed, ok bool) {
	switch encoding {
	case "":
		if isSealedText(text) {
			return decodeBase64(text, asSealed)
		}
		return []byte(text), strings.HasPrefix(text, sealedMarker), true
	case encodingSealed:
		return decodeBase64(text, asSealed)
	case encodingBinary:
		return decodeBase64(text, isSealedText(text))
	case encodingEmpty:
		if text == emptyBody {
			return nil, false, true
		}
	}
	return []byte(text), isSealedText(text), false
}

// asSealed is said of text that is a sealed body.
const asSealed = true

func decodeBase64(text string, sealed bool) (body []byte, isSealed, ok bool) {
	// The package's decoder skips line breaks even when strict; SQS does not
	// make any, so one that is there was put there.
	if strings.IndexByte(text, '\n') >= 0 || strings.IndexByte(text, '\r') >= 0 {
		return []byte(text), sealed, false
	}
	b, err := base64Body.DecodeString(text)
	if err != nil {
		return []byte(text), sealed, false
	}
	return b, sealed, true
}

// validText reports whether b can be an SQS message body as it is: characters
// of XML 1.0 in UTF-8 (API Reference, SendMessage, MessageBody).
func validText(b []byte) bool {
	for len(b) > 0 {
		b = b[plainText(b):]
		if len(b) == 0 {
			break
		}
		if c := b[0]; c < utf8.RuneSelf {
			if c < 0x20 && c != '\t' && c != '\n' && c != '\r' {
				return false
			}
			b = b[1:]
			continue
		}
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 || r == 0xFFFE || r == 0xFFFF {
			return false
		}
		b = b[n:]
	}
	return true
}

// plainText returns how many bytes at the start of b, in eights, are ASCII and no
// control characters: most of most texts, at an eighth of the steps.
func plainText(b []byte) (n int) {
	const (
		high   = 0x8080808080808080
		spaces = 0x2020202020202020
	)
	for ; len(b)-n >= 8; n += 8 {
		v := binary.LittleEndian.Uint64(b[n:])
		// A byte below 0x20 borrows out of its high bit; one above 0x7F has it set.
		if (v|(v-spaces))&high != 0 {
			break
		}
	}
	return n
}
