package cas

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// The keys: kind, group, sender, stream, page. A key is never the beginning of
// another of its kind: each ends with a dot.
func (e *engine) metaKey() string { return e.o.Prefix + ".m." }

func text(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func (e *engine) groupKey(group string) string { return e.o.Prefix + ".g." + text(group) + "." }

func (e *engine) headPrefix(group string) string { return e.o.Prefix + ".h." + text(group) + "." }

func (e *engine) pagePrefix(group string) string { return e.o.Prefix + ".p." + text(group) + "." }

func streamPart(k replaystate.Key) string {
	return text(k.Sender) + "." + hex.EncodeToString(k.Stream[:]) + "."
}

func (e *engine) headKey(group string, k replaystate.Key) string {
	return e.headPrefix(group) + streamPart(k)
}

func (e *engine) pageKey(group string, k replaystate.Key, index uint64) string {
	return fmt.Sprintf("%s%s%014x.", e.pagePrefix(group), streamPart(k), index)
}

// parse takes apart what stands behind the prefix of a key.
func parse(rest string) (k replaystate.Key, index uint64, err error) {
	parts := strings.Split(rest, ".")
	if len(parts) < 3 {
		return k, 0, errors.New("cas: a key of another form")
	}
	sender, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return k, 0, err
	}
	k.Sender = string(sender)
	stream, err := hex.DecodeString(parts[1])
	if err != nil || copy(k.Stream[:], stream) != len(k.Stream) {
		return k, 0, errors.Join(err, errors.New("cas: a stream of another length"))
	}
	if len(parts) == 4 {
		_, err = fmt.Sscanf(parts[2], "%x", &index)
	}
	return k, index, err
}

// encodeMeta encodes the item of the store.
func (e *engine) encodeMeta(h replaystate.History) []byte {
	b := append([]byte{1}, h.Stamp.ID[:]...)
	b = binary.AppendVarint(b, h.Stamp.Birth)
	b = binary.AppendUvarint(b, h.Stamp.Change)
	b = binary.AppendUvarint(b, uint64(e.o.PageSpan)) //nolint:gosec // G115: checked by Open
	return replaystate.AppendLosses(b, h.Losses)
}

// decodeMeta refuses a store whose pages have another span: its indices would name
// other pages.
func (e *engine) decodeMeta(b []byte) (h replaystate.History, err error) {
	s := &h.Stamp
	if len(b) < 1+len(s.ID) || b[0] != 1 {
		return h, replaystate.ErrCorrupt
	}
	b = b[1+copy(s.ID[:], b[1:]):]
	var n int
	if s.Birth, n = binary.Varint(b); n <= 0 {
		return h, replaystate.ErrCorrupt
	}
	b = b[n:]
	if s.Change, n = binary.Uvarint(b); n <= 0 {
		return h, replaystate.ErrCorrupt
	}
	b = b[n:]
	span, n := binary.Uvarint(b)
	switch {
	case n <= 0:
		return h, replaystate.ErrCorrupt
	case span != uint64(e.o.PageSpan): //nolint:gosec // G115: checked by Open
		return h, fmt.Errorf("cas: the store has pages of %d sequences, not of %d: open it as it was made", span, e.o.PageSpan)
	}
	h.Losses, err = replaystate.DecodeLosses(b[n:])
	return h, err
}
