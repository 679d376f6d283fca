package keys

import (
	"crypto/subtle"
	"sync/atomic"
)

// fingerprintInfo separates a fingerprint from what envelopes derive: their info
// begins with "QRE1/" (qre1, Section 3).
const fingerprintInfo = "queue-runtime/keys fingerprint/v1\x00"

// fingerprint tells keys apart without holding a secret: 256 bits derived from
// the secret and the sender ID, from which nothing about the secret or about
// message keys follows.
type fingerprint [32]byte

func (f fingerprint) equal(g fingerprint) bool { return subtle.ConstantTimeCompare(f[:], g[:]) == 1 }

// identity is which secret an ID named last. The zero identity is of an ID that named
// none.
type identity struct {
	print fingerprint
	used  *atomic.Bool // of the last Key with that secret; nil if there was none
}

// refuses reports whether a key with that fingerprint may not take over the ID: the ID
// names another secret, and that is confirmed.
func (i identity) refuses(f fingerprint) bool {
	return i.used != nil && i.used.Load() && !i.print.equal(f)
}

// next is the identity of an ID that now names k. The same secret stays confirmed.
func (i identity) next(k *Key, f fingerprint) identity {
	if i.used != nil && i.used.Load() && i.print.equal(f) {
		k.Confirm()
	}
	return identity{f, k.used}
}

// of is the same identity with k, which holds the same secret, as its Key.
func (i identity) of(k *Key) identity { return identity{i.print, k.used} }

func (k *Key) fingerprint() (fingerprint, error) {
	okm, err := k.Expand([]byte(fingerprintInfo + k.sender))
	return fingerprint(okm[:32]), err
}

// Equal reports in constant time whether both keys hold the same secret for the
// same sender, for providers that have to keep one ID from naming two secrets.
// IDs, times and queues are not compared. A destroyed key equals none.
func (k *Key) Equal(other *Key) bool {
	// One after the other: holding two read locks at once can deadlock with
	// two Destroys.
	f, err := k.fingerprint()
	if err != nil {
		return false
	}
	g, err := other.fingerprint()
	return err == nil && f.equal(g)
}
