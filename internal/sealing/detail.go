package sealing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/queue-runtime/queue/envelope"
)

// This file seals why a handler failed, so that it can travel in the description of a dead
// letter, which brokers keep in cleartext. A detail has the same keys as messages, opens
// beside the one message that it was sealed for, and always has the same length: the
// broker learns that there is one, and nothing of it.

const (
	// sealedDetail is the length of a sealed detail in bytes. In base64, with the mark and
	// the 512 bytes of a description, it stays below the 4,096 characters that Service Bus
	// allows (DeadLetterErrorDescription); with the longest key ID and queue name it has
	// room for 1,900 bytes of text.
	sealedDetail = 2600

	detailMark = " [sealed detail: "
	detailEnd  = "]"
)

// detailEncoding needs no character that a terminal or a log quotes.
var detailEncoding = base64.RawURLEncoding

// detailData is what the detail about a message is bound to: the queue, and the body as
// the broker stores it, which is its envelope and so stands for all that it binds.
func detailData(queue string, body []byte) []byte {
	b := []byte("queue-runtime/failure-detail/v1\x00")
	b = binary.BigEndian.AppendUint32(b, uint32(len(queue))) //nolint:gosec // G115: at most 255
	b = append(b, queue...)
	sum := sha256.Sum256(body)
	return append(b, sum[:]...)
}

// AppendDetail returns description with text beside it, sealed under the current key for
// the message that is stored with body. Text beyond the room that there is, is cut off. The
// key is not confirmed: nothing but this text is lost if its secret turns out to be wrong.
func (s *QueueSealer) AppendDetail(ctx context.Context, description, text string, body []byte) (string, *Failure) {
	h, e, f := s.direct(ctx)
	if f != nil {
		return "", f
	}
	plaintext := make([]byte, sealedDetail-envelope.SealedSize(h, 0))
	copy(plaintext, cut(text, len(plaintext)))
	b, f := e.sealApp(ctx, h, plaintext, detailData(s.Queue, body))
	if f != nil {
		return "", f
	}
	return description + detailMark + detailEncoding.EncodeToString(b) + detailEnd, nil
}

// cut returns the first n bytes of text at the most, and no part of a character.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// SplitDetail takes the description of a dead letter apart. sealed is nil if it has no
// detail, and not an envelope if what there is was cut short.
func SplitDetail(description string) (plain string, sealed []byte) {
	plain, rest, found := strings.Cut(description, detailMark)
	if !found {
		return description, nil
	}
	text, whole := strings.CutSuffix(rest, detailEnd)
	b, err := detailEncoding.DecodeString(text)
	if !whole || err != nil {
		return plain, []byte{}
	}
	return plain, b
}

// OpenDetail opens what SplitDetail found in a dead letter that is stored with body.
func (o *QueueOpener) OpenDetail(ctx context.Context, sealed, body []byte) (string, *Failure) {
	b, f := o.openApp(ctx, sealed, detailData(o.Queue, body))
	if f != nil {
		return "", f
	}
	return string(bytes.TrimRight(b, "\x00")), nil
}
