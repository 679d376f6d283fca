package cas

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
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

// meta is what the item of the store holds.
type meta struct {
	replaystate.History
	// handles has, for the Stores that raised the change number last, what it then was: the
	// oldest first.
	handles []handle
}

// handle is a Store that raised the change number.
type handle struct{ id, change uint64 }

// maxHandles bounds the handles of the item, which is written often. Of a Store that is not
// among so many it is not known what it raised.
const maxHandles = 64

// note enters that a Store has raised the change number to what it is now.
func (m *meta) note(id uint64) {
	all := slices.DeleteFunc(m.handles, func(h handle) bool { return h.id == id })
	m.handles = append(all[max(0, len(all)-maxHandles+1):], handle{id, m.Stamp.Change})
}

// has reports whether the memory may have what a Store raised the change number to.
func (m *meta) has(id, change uint64) bool {
	if i := slices.IndexFunc(m.handles, func(h handle) bool { return h.id == id }); i >= 0 {
		return m.handles[i].change >= change
	}
	return change == 0 || len(m.handles) == maxHandles
}

// encodeMeta encodes the item of the store.
func (e *engine) encodeMeta(m *meta) []byte {
	b := append([]byte{2}, m.Stamp.ID[:]...)
	b = binary.AppendVarint(b, m.Stamp.Birth)
	b = binary.AppendUvarint(b, m.Stamp.Change)
	b = binary.AppendUvarint(b, uint64(e.o.PageSpan)) //nolint:gosec // G115: checked by Open
	b = binary.AppendUvarint(b, uint64(len(m.handles)))
	for _, h := range m.handles {
		b = binary.BigEndian.AppendUint64(b, h.id)
		b = binary.AppendUvarint(b, h.change)
	}
	return replaystate.AppendLosses(b, m.Losses)
}

// decodeMeta refuses a store whose pages have another span: its indices would name
// other pages.
func (e *engine) decodeMeta(b []byte) (m meta, err error) {
	s := &m.Stamp
	if len(b) < 1+len(s.ID) || b[0] != 2 {
		return m, replaystate.ErrCorrupt
	}
	b = b[1+copy(s.ID[:], b[1:]):]
	var n int
	if s.Birth, n = binary.Varint(b); n <= 0 {
		return m, replaystate.ErrCorrupt
	}
	b = b[n:]
	if s.Change, n = binary.Uvarint(b); n <= 0 {
		return m, replaystate.ErrCorrupt
	}
	b = b[n:]
	span, n := binary.Uvarint(b)
	switch {
	case n <= 0:
		return m, replaystate.ErrCorrupt
	case span != uint64(e.o.PageSpan): //nolint:gosec // G115: checked by Open
		return m, fmt.Errorf("cas: the store has pages of %d sequences, not of %d: open it as it was made", span, e.o.PageSpan)
	}
	if m.handles, b, err = decodeHandles(b[n:]); err != nil {
		return m, err
	}
	m.Losses, err = replaystate.DecodeLosses(b)
	return m, err
}

func decodeHandles(b []byte) (all []handle, rest []byte, err error) {
	count, n := binary.Uvarint(b)
	if n <= 0 || count > maxHandles {
		return nil, nil, replaystate.ErrCorrupt
	}
	b = b[n:]
	for range count {
		if len(b) < 8 {
			return nil, nil, replaystate.ErrCorrupt
		}
		h := handle{id: binary.BigEndian.Uint64(b)}
		if h.change, n = binary.Uvarint(b[8:]); n <= 0 {
			return nil, nil, replaystate.ErrCorrupt
		}
		all, b = append(all, h), b[8+n:]
	}
	return all, b, nil
}
