package keys

import "crypto/subtle"

// fingerprintInfo separates a fingerprint from what envelopes derive: their info
// begins with "QRE1/" (qre1, Section 3).
const fingerprintInfo = "queue-runtime/keys fingerprint/v1\x00"

// fingerprint tells secrets apart without holding one: 256 bits derived from
// the secret, from which nothing about it or about message keys follows.
type fingerprint [32]byte

func (f fingerprint) equal(g fingerprint) bool { return subtle.ConstantTimeCompare(f[:], g[:]) == 1 }

func (k *Key) fingerprint() (fingerprint, error) {
	okm, err := k.Derive([]byte(fingerprintInfo))
	return fingerprint(okm[:32]), err
}

// Equal reports in constant time whether both keys hold the same secret, for
// connect that have to keep one ID from naming two secrets. IDs and times are
// not compared. A destroyed key equals none.
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
