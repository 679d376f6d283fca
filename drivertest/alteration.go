package drivertest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
)

// header parses what the attacker captured and encodes what change makes of its
// header.
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

// alterHeader changes a field such that the header still parses.
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

// stripMarker makes a sealed message look like one that never was. Where bodies
// are text the attacker has only text to store.
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
		if strings.HasPrefix(string(m.Body), "UVJFMQ") {
			return errors.New("the marker is still there")
		}
	}
	return nil
}
