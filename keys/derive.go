package keys

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// Labels of what is derived from a master key (qre1, Sections 3.1 and 3.4).
const (
	senderLabel = "QRE1/sender/v1\x00"
	checkLabel  = "QRE1/check/v1\x00"

	// reserved begins the info of everything that qre1 derives.
	reserved = "QRE1/"
)

// CheckSize is the length of a check value in bytes (qre1, Section 3.4).
const CheckSize = 16

// Derive returns 64 bytes of HKDF-Expand (RFC 5869, Section 2.3) with SHA-256, the
// sender key of that sender ID as the pseudorandom key, and info: it makes a Key an
// envelope.Deriver (qre1, Sections 3.1 and 3.2). A master key derives the sender
// key first, also for the empty ID; a sender key fails with ErrSenderKey for any
// other ID than its own. The other errors are ErrInvalidKey, for a sender ID of
// more than MaxID bytes, and ErrDestroyed.
//
// Secrets are uniform, so that no extract step is needed (RFC 5869, Section 3.3).
func (k *Key) Derive(sender string, info []byte) (okm [64]byte, err error) {
	if k.sender != "" && sender != k.sender {
		return okm, k.senderKeyError("derive for another sender")
	}
	if len(sender) > MaxID {
		return okm, fmt.Errorf("keys: %w: a sender ID of %d bytes: use at most %d", ErrInvalidKey, len(sender), MaxID)
	}
	err = k.with(func(secret *[Size]byte) error {
		return confine(func() error {
			if k.sender != "" {
				return expand(okm[:], secret, string(info))
			}
			var own [Size]byte
			defer clear(own[:])
			if err := expand(own[:], secret, senderInfo(sender)); err != nil {
				return err
			}
			return expand(okm[:], &own, string(info))
		})
	})
	return okm, err
}

// Sender returns the sender key of that sender ID, with the times and queues of k
// (qre1, Section 3.1). It fails with ErrInvalidKey for an empty or malformed ID,
// with ErrSenderKey if k is a sender key itself, and with ErrDestroyed.
func (k *Key) Sender(sender string) (*Key, error) {
	if err := validateSender(sender); err != nil {
		return nil, err
	}
	if k.sender != "" {
		return nil, k.senderKeyError("make sender keys")
	}
	var made *Key
	err := k.with(func(secret *[Size]byte) error {
		return confine(func() (err error) {
			var own [Size]byte
			defer clear(own[:])
			if err = expand(own[:], secret, senderInfo(sender)); err != nil {
				return err
			}
			made, err = NewSender(k.id, sender, own[:], &Options{Created: k.created, Expires: k.expires, Queues: k.queues})
			return err
		})
	})
	return made, err
}

func senderInfo(sender string) string {
	return senderLabel + string([]byte{byte(len(sender))}) + sender //nolint:gosec // G115: at most MaxID
}

// CheckValue returns what tells two master keys apart without saying anything
// about them: receivers may store and compare it (qre1, Section 3.4). It fails
// with ErrSenderKey for a sender key, from which it cannot be derived, and with
// ErrDestroyed.
func (k *Key) CheckValue() (v [CheckSize]byte, err error) {
	if k.sender != "" {
		return v, k.senderKeyError("derive a check value")
	}
	err = k.with(func(secret *[Size]byte) error {
		return confine(func() error { return expand(v[:], secret, checkLabel) })
	})
	return v, err
}

// Expand returns 64 bytes of HKDF-Expand with SHA-256, the secret itself as the
// pseudorandom key, and info, for purposes outside of envelopes. It fails for an
// info that begins with "QRE1/", which is reserved (qre1, Section 3), and with
// ErrDestroyed.
func (k *Key) Expand(info []byte) (okm [64]byte, err error) {
	if bytes.HasPrefix(info, []byte(reserved)) {
		return okm, fmt.Errorf("keys: an info that begins with %s is reserved: use another", reserved)
	}
	err = k.with(func(secret *[Size]byte) error {
		return confine(func() error { return expand(okm[:], secret, string(info)) })
	})
	return okm, err
}

// expand fills dst with HKDF-Expand.
func expand(dst []byte, secret *[Size]byte, info string) error {
	out, err := hkdf.Expand(sha256.New, secret[:], info, len(dst))
	if err != nil {
		return fmt.Errorf("keys: derive: %w", err)
	}
	copy(dst, out)
	clear(out)
	return nil
}

// senderKeyError says what a sender key cannot do.
func (k *Key) senderKeyError(what string) error {
	return fmt.Errorf("keys: %w: %s is the sender key of %s and cannot %s: use the master key", ErrSenderKey, k.id, k.sender, what)
}
