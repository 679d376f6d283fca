package keys

import "crypto/subtle"

// fingerprintInfo separates a fingerprint from what envelopes derive: their info
// begins with "QRE1/" (qre1, Section 3).
const fingerprintInfo = "queue-runtime/keys fingerprint/v1\x00"

// fingerprint tells keys apart without holding a secret: 256 bits derived from
// the secret and the sender ID, from which nothing about the secret or about
// message keys follows.
type fingerprint [32]byte

func (f fingerprint) equal(g fingerprint) bool { return subtle.ConstantTimeCompare(f[:], g[:]) == 1 }

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
