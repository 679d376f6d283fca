package attacktest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/envelope"
)

// alteration changes the i-th stored message. binary says whether the broker
// carries bodies as bytes.
type alteration func(i int, m *driver.Message, binary bool) error

// altering is an attack that changes each of n stored messages.
func altering(f alteration) func(*scenario) error {
	return func(s *scenario) error { return s.alter(f) }
}

func (s *scenario) alter(f alteration) error {
	name, err := s.newQueue()
	if err != nil {
		return err
	}
	if err := s.send(name, 0, s.n+s.companions()); err != nil {
		return err
	}
	if _, err := s.capture(name); err != nil {
		return err
	}
	r, err := s.receiver(name, receiverSettings{policy: queue.Reject})
	if err != nil {
		return err
	}
	binary := r.Capabilities().BinaryBody
	err = s.rewrite(name, func(all []driver.Message) (out, forged []driver.Message, err error) {
		left := s.n
		for i, m := range all {
			if left > 0 && !s.unaltered(i) {
				left--
				c := m.Clone()
				if err := f(i, &c, binary); err != nil {
					return nil, nil, err
				}
				if drivertest.Difference(&m, &c) == "" {
					return nil, nil, fmt.Errorf("message %q was not altered", m.ID)
				}
				forged = append(forged, c)
				m = c
			}
			out = append(out, m)
		}
		return out, forged, nil
	})
	if err != nil {
		return err
	}
	return s.receiveAll(r, s.companions(), s.forged)
}

// unaltered reports whether the attacker leaves the i-th message as it is: every
// sixth, so that honest messages stand between altered ones.
func (s *scenario) unaltered(i int) bool { return i%6 == 5 }

// header replaces the header of a stored message by the result of change.
func header(m *driver.Message, change func(*envelope.Header)) error {
	e, err := envelope.Parse(m.Body)
	if err != nil {
		return err
	}
	f := envelope.EncryptedMessage{Header: e.Header, Nonce: e.Nonce, Ciphertext: e.Ciphertext, Tag: e.Tag}
	f.Bound = slices.Clone(e.Bound)
	change(&f.Header)
	b := f.Bytes()
	if b == nil {
		return errors.New("the forged header is not valid")
	}
	if _, err := envelope.Parse(b); err != nil {
		return err
	}
	m.Body = b
	return nil
}

// alterBody flips a bit of nonce, ciphertext or tag, or changes the length.
func alterBody(i int, m *driver.Message, _ bool) error {
	e, err := envelope.Parse(m.Body)
	if err != nil {
		return err
	}
	rest := envelope.NonceSize + len(e.Ciphertext) + envelope.TagSize
	start := len(m.Body) - rest
	switch i % 8 {
	case 6:
		m.Body = m.Body[:len(m.Body)-1]
	case 7:
		m.Body = append(m.Body, 0)
	case 0: // the nonce
		m.Body[start+i%envelope.NonceSize] ^= 1 << (i % 7)
	case 1: // the tag
		m.Body[len(m.Body)-1-i%envelope.TagSize] ^= 1 << (i % 7)
	default: // the ciphertext
		m.Body[start+envelope.NonceSize+i*37%len(e.Ciphertext)] ^= 1 << (i % 7)
	}
	return nil
}

// alterHeader changes one field so that the header still parses.
func alterHeader(i int, m *driver.Message, _ bool) error {
	return header(m, func(h *envelope.Header) {
		switch i % 8 {
		case 0:
			h.EncryptedAt += int64(1 + i)
		case 1:
			h.NotBefore = h.EncryptedAt - int64(1+i)
		case 2:
			h.ExpiresAt = h.EncryptedAt + int64(time.Hour/time.Millisecond) + int64(i)
		case 3:
			h.Origin += "x"
		case 4:
			h.Bound = h.Bound[1:]
		case 5:
			h.Bound = append(h.Bound, "zz-forged")
		case 6:
			h.Salt[i%envelope.SaltSize] ^= 1
		case 7:
			h.Commitment[i%envelope.CommitmentSize] ^= 1
		}
	})
}

// alterSequence changes what the header says of the message's place among others.
func alterSequence(i int, m *driver.Message, _ bool) error {
	return header(m, func(h *envelope.Header) {
		kind := i % 5
		if h.Sequence == 1 && kind > 1 {
			kind = 0 // nothing lies below it
		}
		switch kind {
		case 0:
			h.Sequence++
		case 1:
			h.Stream[i%envelope.StreamSize] ^= 1
		case 2:
			h.Settled = h.Sequence - 1 - h.Settled%2
		case 3:
			h.Previous = h.Sequence - 1
		case 4:
			h.Settled, h.Void = max(h.Settled, 1), []envelope.Range{{First: 1, Last: 1}}
		}
	})
}

// unpad takes the mark of padding off, or changes the length of what was padded.
func unpad(s *scenario) error {
	s.padding = envelope.PadTo(512)
	return s.alter(func(i int, m *driver.Message, _ bool) error {
		e, err := envelope.Parse(m.Body)
		if err != nil {
			return err
		}
		end := len(m.Body) - envelope.TagSize
		switch i % 3 {
		case 0:
			return header(m, func(h *envelope.Header) { h.Padded = false })
		case 1: // without the last bytes, which are padding
			m.Body = append(m.Body[:end-1-i%4], e.Tag[:]...)
		case 2: // with more of them
			m.Body = append(m.Body[:end:end], append(make([]byte, 1+i%4), e.Tag[:]...)...)
		}
		return nil
	})
}

func alterMessageID(i int, m *driver.Message, _ bool) error {
	switch i % 3 {
	case 0:
		m.ID += "x"
	case 1:
		m.ID = strings.ToUpper(m.ID)
	case 2:
		m.ID = "forged-" + m.ID
	}
	return nil
}

func alterSessionID(i int, m *driver.Message, _ bool) error {
	if i%2 == 0 {
		m.SessionID += "0"
	} else {
		m.SessionID = "acme/other#" + fmt.Sprint(i)
	}
	return nil
}

func alterCorrelationID(i int, m *driver.Message, _ bool) error {
	switch i % 3 {
	case 0:
		m.CorrelationID = ""
	case 1:
		m.CorrelationID += " "
	case 2:
		m.CorrelationID = "delivery-of-another"
	}
	return nil
}

func alterContentType(i int, m *driver.Message, _ bool) error {
	m.ContentType = []string{"", "text/html", "Application/json"}[i%3]
	return nil
}

func alterAttribute(i int, m *driver.Message, _ bool) error {
	a := m.Attributes
	switch i % 4 {
	case 0: // another value
		a["repository"] = "acme/other"
	case 1: // taken away
		delete(a, "event")
	case 2: // two values swapped
		a["event"], a["sender"] = a["sender"], a["event"]
	case 3: // another name
		a["Event"] = a["event"]
		delete(a, "event")
	}
	return nil
}

func forgeVersion(i int, m *driver.Message, _ bool) error {
	v := byte(i % 255) //nolint:gosec // G115: below 255
	if v >= envelope.Version1 {
		v++
	}
	m.Body[len(envelope.Marker)] = v
	return nil
}

// stripMarker makes a sealed message look like one that was never sealed. If
// bodies are text, the attacker can store text only.
func stripMarker(i int, m *driver.Message, binary bool) error {
	m.Sealed = false
	switch i % 3 {
	case 0:
		m.Body = m.Body[len(envelope.Marker):]
	case 1:
		m.Body[i%len(envelope.Marker)] ^= 0x20
	case 2:
		m.Body = append([]byte(" "), m.Body...)
	}
	if !binary {
		m.Body = []byte(base64.StdEncoding.EncodeToString(m.Body))
		if envelope.IsSealedText(m.Body) {
			return errors.New("the marker is still there")
		}
	}
	return nil
}

// swapKeyID replaces the key ID by that of another key that the receiver has.
func swapKeyID(s *scenario) error {
	return s.alter(func(_ int, m *driver.Message, _ bool) error {
		return header(m, func(h *envelope.Header) { h.KeyID = string(otherKeyID) })
	})
}

// unboundAttributeAdded adds an attribute that the sender did not bind. The
// receiver must get it apart from the authentic ones.
func unboundAttributeAdded(s *scenario) error {
	name, err := s.newQueue()
	if err != nil {
		return err
	}
	if err := s.send(name, 0, s.n+s.companions()); err != nil {
		return err
	}
	r, err := s.receiver(name, receiverSettings{policy: queue.Reject})
	if err != nil {
		return err
	}
	err = s.rewrite(name, func(all []driver.Message) (out, forged []driver.Message, err error) {
		left := s.n
		for i, m := range all {
			if left > 0 && !s.unaltered(i) {
				left--
				m = m.Clone()
				m.Attributes[forgedAttribute] = "true"
				forged = append(forged, m)
			}
			out = append(out, m)
		}
		return out, forged, nil
	})
	if err != nil {
		return err
	}
	return s.receiveAll(r, s.companions(), func(d *queue.Delivery) {
		if fingerprintOf(&d.Message) != s.sent[d.ID] || !d.Encrypted {
			s.fault("message %q was delivered other than it was sent", d.ID)
		}
		if !maps.Equal(d.Unauthenticated, map[string]string{forgedAttribute: "true"}) {
			s.fault("the attribute that was added to message %q is not set apart", d.ID)
		}
	})
}

const forgedAttribute = "approved"
