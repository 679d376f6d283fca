package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The types of frame (transport 2.3.1, security 5.3.1).
const (
	FrameAMQP byte = 0
	FrameSASL byte = 1
)

const (
	headerSize = 8
	// MinMaxFrame is the frame size that every peer must accept before open is
	// exchanged (transport 2.7.1).
	MinMaxFrame = 512
)

// ErrFrame is wrapped by every error about a frame whose header is malformed or
// that is larger than allowed.
var ErrFrame = errors.New("invalid amqp frame")

// Frame is one frame as it was read. An empty Body is a heartbeat.
type Frame struct {
	Type    byte
	Channel uint16
	Body    []byte
}

// ReadFrame reads one frame of at most limit bytes, header included. The frame
// has a buffer of its own. io.EOF means that the input ended between frames.
func ReadFrame(r io.Reader, limit uint32) (Frame, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Frame{}, err
	}
	size := binary.BigEndian.Uint32(h[:4])
	if size < headerSize || size > limit {
		return Frame{}, fmt.Errorf("%w: size %d, limit %d", ErrFrame, size, limit)
	}
	offset := 4 * uint32(h[4]) // in words of 4 bytes (transport 2.3.1)
	if offset < headerSize || offset > size {
		return Frame{}, fmt.Errorf("%w: data offset %d of %d", ErrFrame, offset, size)
	}
	if h[5] > FrameSASL {
		return Frame{}, fmt.Errorf("%w: type %#02x", ErrFrame, h[5])
	}
	body := make([]byte, size-headerSize)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return Frame{
		Type:    h[5],
		Channel: binary.BigEndian.Uint16(h[6:]),
		Body:    body[offset-headerSize:],
	}, nil
}

// AppendFrame encodes a frame after b. A nil performative is a heartbeat. The
// caller sees to it that the frame is no larger than the peer accepts.
func AppendFrame(b []byte, kind byte, channel uint16, p Performative, payload []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint16(append(b, 0, 0, 0, 0, headerSize/4, kind), channel)
	if p != nil {
		b = appendComposite(b, p.code(), p.fields())
		b = append(b, payload...)
	}
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at))
	return b
}

// Protocol is the third part of a protocol header (transport 2.2, security 5.2).
type Protocol byte

// The protocols. TLS is known only to be refused.
const (
	ProtocolAMQP Protocol = 0
	ProtocolTLS  Protocol = 2
	ProtocolSASL Protocol = 3
)

// AppendProtocol encodes the header of p in version 1.0.0.
func AppendProtocol(b []byte, p Protocol) []byte {
	return append(b, 'A', 'M', 'Q', 'P', byte(p), 1, 0, 0)
}

// ReadProtocol reads a protocol header.
func ReadProtocol(r io.Reader) (Protocol, error) {
	var h [8]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, err
	}
	if string(h[:4]) != "AMQP" || h[5] != 1 || h[6] != 0 || h[7] != 0 {
		return 0, fmt.Errorf("%w: protocol header % x", ErrFrame, h)
	}
	return Protocol(h[4]), nil
}
