package envelope

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/queue-runtime/queue/spec"
)

// Offsets in the envelope of the typical message.
const (
	voidAt   = fixedSize // the number of ranges
	keyIDAt  = voidAt + 1 + 16 + 1
	senderAt = keyIDAt + len("merge-warden/2026-01") + 1
	originAt = senderAt + len("router/eu-1") + 1
	boundAt  = originAt + len("merge-warden") + 1 // the first length byte
	saltAt   = boundAt + 1 + len("action") + 1 + len("event")
	commitAt = saltAt + SaltSize
	nonceAt  = commitAt + CommitmentSize
	cipherAt = nonceAt + NonceSize
)

// malformed adds an envelope that is none, with one fault. If alter changes only
// the header, it is sealed over what it was changed to, so that nothing else is
// wrong with it.
func (l *recipes) malformed(name, field, comment string, alter func(typical []byte) []byte) {
	l.add("parse-"+name, func(r *recipe) {
		f := r.forge()
		b := alter(bytes.Clone(r.v.Envelope))
		if tail := r.v.Envelope[saltAt:]; bytes.HasSuffix(b, tail) && IsSealed(b) {
			f.prefix = b[:len(b)-len(tail)]
			if keyID, sender, ok := idsOf(f.prefix); ok {
				f.keyID, f.sender = keyID, sender
			}
			b = f.envelope(r.t, r.key)
		}
		r.malformed(field, comment, b)
	})
}

// idsOf finds key ID and sender ID in a header that may break any rule.
func idsOf(header []byte) (keyID, sender string, ok bool) {
	at := voidAt + 1 + 16*int(header[voidAt])
	take := func() (s string) {
		if at < len(header) && at+1+int(header[at]) <= len(header) {
			s, ok = string(header[at+1:at+1+int(header[at])]), true
			at += 1 + int(header[at])
		} else {
			ok = false
		}
		return s
	}
	keyID, sender = take(), take()
	return keyID, sender, ok
}

// parseVectors are the envelopes that are none. Each has one fault.
func parseVectors(l *recipes) {
	malformed := l.malformed
	set := func(at int, with ...byte) func([]byte) []byte {
		return func(b []byte) []byte {
			copy(b[at:], with)
			return b
		}
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	replace := func(from, to int, with ...byte) func([]byte) []byte {
		return func(b []byte) []byte { return slices.Replace(b, from, to, with...) }
	}
	late := binary.BigEndian.AppendUint64(nil, MaxTime+1)
	names := func(list ...string) []byte {
		b := []byte{byte(len(list))}
		for _, s := range list {
			b = appendShort(b, s)
		}
		return b
	}
	bound := func(list ...string) func([]byte) []byte {
		return replace(boundAt-1, saltAt, names(list...)...)
	}
	var many []string
	for i := range MaxBound + 1 {
		many = append(many, string([]byte{'a', byte('0' + i/10), byte('0' + i%10)}))
	}

	malformed("marker-empty", "marker", "An empty body.", cut(0))
	malformed("marker-cut", "marker", "Three bytes of the marker.", cut(3))
	malformed("marker-case", "marker", "The marker in lower case.", set(0, 'q', 'r', 'e'))
	malformed("marker-late", "marker", "A byte before the marker.", func(b []byte) []byte { return append([]byte{' '}, b...) })
	malformed("marker-other", "marker", "Another marker.", set(3, '2'))
	malformed("version-cut", "version", "The marker alone.", cut(4))
	malformed("version-0", "version", "Version 0.", set(4, 0))
	malformed("version-2", "version", "Version 2.", set(4, 2))
	malformed("version-255", "version", "Version 255.", set(4, 255))
	malformed("version-ascii", "version", "The digit 1 for the version.", set(4, '1'))
	malformed("version-2-short", "version", "Version 2 and nothing after it: what follows a version is not looked at.", func([]byte) []byte { return []byte("QRE1\x02") })
	malformed("version-2-flags", "version", "Version 2 with a flag: what follows a version is not looked at.", set(4, 2, 1))
	malformed("flags-cut", "flags", "The end before the flags.", cut(5))
	malformed("flags-second", "flags", "The lowest flag that is not defined.", set(5, 2))
	malformed("flags-padded", "flags", "A flag that is not defined, with the one that is.", set(5, 3))
	malformed("flags-highest", "flags", "The highest flag.", set(5, 0x80))
	malformed("encrypted-at-cut", "encrypted_at", "The end in encrypted_at.", cut(13))
	malformed("encrypted-at-late", "encrypted_at", "encrypted_at in the year 10000.", set(6, late...))
	malformed("encrypted-at-negative", "encrypted_at", "encrypted_at with its highest bit set.", set(6, bytes.Repeat([]byte{0xff}, 8)...))
	malformed("not-before-cut", "not_before", "The end in not_before.", cut(14))
	malformed("not-before-late", "not_before", "not_before in the year 10000.", set(14, late...))
	malformed("not-before-negative", "not_before", "not_before with its highest bit set.", set(14, 0x80))
	malformed("expires-at-cut", "expires_at", "The end in expires_at.", cut(29))
	malformed("expires-at-late", "expires_at", "expires_at in the year 10000.", set(22, late...))
	malformed("expires-at-negative", "expires_at", "expires_at with its highest bit set.", set(22, 0x80))
	malformed("key-id-missing", "key ID", "The end before the length of the key ID.", cut(keyIDAt-1))
	malformed("key-id-cut", "key ID", "The end in the key ID.", cut(senderAt-2))
	malformed("key-id-empty", "key ID", "An empty key ID.", replace(keyIDAt-1, senderAt-1, 0))
	malformed("key-id-long", "key ID", "A key ID of 65 bytes.", replace(keyIDAt-1, senderAt-1, appendShort(nil, strings.Repeat("k", 65))...))
	malformed("key-id-space", "key ID", "A space in the key ID.", set(keyIDAt, ' '))
	malformed("key-id-zero", "key ID", "A byte of zero at the end of the key ID.", set(senderAt-2, 0))
	malformed("key-id-plus", "key ID", "A plus sign in the key ID.", set(keyIDAt+3, '+'))
	malformed("key-id-utf8", "key ID", "A letter in the key ID that is not ASCII.", set(keyIDAt, 0xc3, 0xa9))
	malformed("sender-id-missing", "sender ID", "The end before the length of the sender ID.", cut(senderAt-1))
	malformed("sender-id-cut", "sender ID", "The end in the sender ID.", cut(originAt-2))
	malformed("sender-id-long", "sender ID", "A sender ID of 65 bytes.", replace(senderAt-1, originAt-1, appendShort(nil, strings.Repeat("s", 65))...))
	malformed("sender-id-space", "sender ID", "A space in the sender ID.", set(senderAt, ' '))
	malformed("sender-id-zero", "sender ID", "A byte of zero at the end of the sender ID.", set(originAt-2, 0))
	malformed("sender-id-plus", "sender ID", "A plus sign in the sender ID.", set(senderAt+3, '+'))
	malformed("sender-id-utf8", "sender ID", "A letter in the sender ID that is not ASCII.", set(senderAt, 0xc3, 0xa9))
	malformed("origin-missing", "origin", "The end before the length of the origin.", cut(originAt-1))
	malformed("origin-cut", "origin", "The end in the origin.", cut(boundAt-2))
	malformed("origin-empty", "origin", "An empty origin.", replace(originAt-1, boundAt-1, 0))
	malformed("origin-latin1", "origin", "An origin in Latin-1.", set(originAt, 0xe9))
	malformed("origin-surrogate", "origin", "Half of a surrogate pair in the origin.", set(originAt, 0xed, 0xa0, 0x80))
	malformed("origin-overlong", "origin", "An overlong form in the origin.", set(originAt, 0xc0, 0xaf))
	malformed("origin-above", "origin", "A character above U+10FFFF in the origin.", set(originAt, 0xf4, 0x90, 0x80, 0x80))
	malformed("origin-split", "origin", "An origin that ends within a character.", set(boundAt-2, 0xc3))
	malformed("bound-missing", "bound attributes", "The end before the number of bound attributes.", cut(boundAt-1))
	malformed("bound-cut", "bound attributes", "The end before the last of the names.", cut(boundAt+7))
	malformed("bound-name-cut", "bound attributes", "The end in the last of the names.", cut(saltAt-1))
	malformed("bound-many", "bound attributes", "65 bound attributes.", bound(many...))
	malformed("bound-promised", "bound attributes", "64 bound attributes are promised and the body ends.", func(b []byte) []byte { return append(b[:boundAt-1], 64) })
	malformed("bound-empty", "bound attributes", "An empty name.", bound("", "event"))
	malformed("bound-descending", "bound attributes", "Names that descend.", bound("event", "action"))
	malformed("bound-twice", "bound attributes", "A name that comes twice.", bound("event", "event"))
	malformed("bound-prefix", "bound attributes", "A name before its own prefix.", bound("eventful", "event"))
	malformed("bound-utf16", "bound attributes", "Names in the order of UTF-16, which is not that of their bytes.", bound("\U00010000", "\ufffd"))
	malformed("bound-length", "bound attributes", "Names in the order of their lengths, which is not that of their bytes.", bound("b", "aa"))
	malformed("salt-missing", "salt", "The end before the salt.", cut(saltAt))
	malformed("salt-cut", "salt", "The end in the salt.", cut(commitAt-1))
	malformed("commitment-missing", "key commitment", "The end before the key commitment.", cut(commitAt))
	malformed("commitment-cut", "key commitment", "The end in the key commitment.", cut(nonceAt-1))
	malformed("nonce-missing", "nonce", "The end before the nonce.", cut(nonceAt))
	malformed("nonce-cut", "nonce", "The end in the nonce.", cut(cipherAt-1))
	malformed("tag-missing", "authentication tag", "The end before the tag.", cut(cipherAt))
	malformed("tag-cut", "authentication tag", "Fifteen bytes after the nonce.", cut(cipherAt+15))
}

// alteredVectors are envelopes that parse and must not open: the bytes were
// changed, or what arrived beside them.
func alteredVectors(l *recipes) {
	altered := func(layer spec.Layer, name, comment string, alter func(*spec.Vector)) {
		l.add(string(layer)+"-"+name, func(r *recipe) {
			r.seal()
			alter(r.v)
			r.fails(layer, comment)
		})
	}
	flip := func(at int) func(*spec.Vector) {
		return func(v *spec.Vector) {
			if at < 0 {
				at += len(v.Envelope)
			}
			v.Envelope[at] ^= 1
		}
	}
	attribute := func(v *spec.Vector, name string) *spec.Attribute {
		i := slices.IndexFunc(v.Attributes, func(a spec.Attribute) bool { return a.Name == name })
		return &v.Attributes[i]
	}
	without := func(v *spec.Vector, name string) {
		v.Attributes = slices.DeleteFunc(v.Attributes, func(a spec.Attribute) bool { return a.Name == name })
	}
	const context, commitment, authentication = spec.LayerContext, spec.LayerCommitment, spec.LayerAuthentication

	altered(context, "attribute-missing", "A bound attribute did not arrive.", func(v *spec.Vector) { without(v, "event") })
	altered(context, "attribute-renamed", "A bound attribute arrived under another name.", func(v *spec.Vector) { attribute(v, "event").Name = "events" })
	altered(context, "attribute-case", "A bound attribute arrived under its name in upper case.", func(v *spec.Vector) { attribute(v, "event").Name = "EVENT" })
	altered(context, "attributes-lost", "No attributes arrived.", func(v *spec.Vector) { v.Attributes = nil })
	altered(context, "bound-forged", "The header binds another name than was sealed, and no such attribute arrived.", flip(boundAt+1))

	altered(commitment, "wrong-key", "Another master key.", func(v *spec.Vector) { v.Key = ascending(0x80) })
	altered(commitment, "key-bit", "A master key that differs in its last bit.", func(v *spec.Vector) {
		v.Key = bytes.Clone(v.Key)
		v.Key[31] ^= 1
	})
	altered(commitment, "key-id", "The key ID was changed to another of the same length.", flip(keyIDAt))
	altered(commitment, "salt-first", "The first byte of the salt was changed.", flip(saltAt))
	altered(commitment, "salt-last", "The last byte of the salt was changed.", flip(commitAt-1))
	altered(commitment, "altered", "The key commitment was changed on the way.", flip(commitAt))
	altered(commitment, "sender-id", "The sender ID was changed to another of the same length.", flip(senderAt))
	altered(commitment, "sender-id-removed", "The sender ID was removed.", func(v *spec.Vector) {
		v.Envelope[senderAt-1] = 0
		v.Envelope = slices.Delete(v.Envelope, senderAt, originAt-1)
	})
	altered(commitment, "key-id-boundary", "A byte moved from the sender ID to the key ID.", func(v *spec.Vector) {
		b := v.Envelope
		b[keyIDAt-1]++
		b[senderAt-1], b[senderAt] = b[senderAt], b[senderAt-1]-1
	})
	l.add("commitment-two-keys", func(r *recipe) {
		r.salamander(ascending(0), ascending(0x80))
		r.v.Key = ascending(0x80)
		r.fails(commitment, "A ciphertext that opens under two keys, with the key that it does not commit to: AES-GCM alone accepts it. See open-two-keys.")
	})

	altered(authentication, "encrypted-at", "encrypted_at was changed.", flip(13))
	altered(authentication, "not-before", "not_before was set.", flip(21))
	altered(authentication, "expires-at", "expires_at was changed.", flip(29))
	altered(authentication, "expires-at-removed", "expires_at was removed.", func(v *spec.Vector) { clear(v.Envelope[22:30]) })
	altered(authentication, "padded", "The padded flag was set.", flip(flagsAt))
	altered(authentication, "stream-first", "The first byte of the stream was changed.", flip(streamAt))
	altered(authentication, "stream-last", "The last byte of the stream was changed.", flip(sequenceAt-1))
	altered(authentication, "sequence", "The sequence was changed.", func(v *spec.Vector) { v.Envelope[settledAt-1]++ })
	altered(authentication, "settled", "settled was changed.", func(v *spec.Vector) { v.Envelope[previousAt-1]++ })
	altered(authentication, "previous", "previous was changed.", flip(resealedAtAt-1))
	altered(authentication, "previous-removed", "previous was removed.", func(v *spec.Vector) { clear(v.Envelope[previousAt:resealedAtAt]) })
	altered(authentication, "resealed-at", "resealed_at was set.", flip(fixedSize-1))
	altered(authentication, "void", "A void range was changed.", func(v *spec.Vector) { v.Envelope[voidAt+8]-- })
	altered(authentication, "void-removed", "The void range was removed.", func(v *spec.Vector) {
		v.Envelope = slices.Replace(v.Envelope, voidAt, keyIDAt-1, 0)
	})
	altered(authentication, "origin", "The origin was changed.", flip(originAt))
	altered(authentication, "bound-added", "A name was added to the bound ones, and such an attribute.", func(v *spec.Vector) {
		v.Envelope[boundAt-1]++
		v.Envelope = slices.Insert(v.Envelope, saltAt, appendShort(nil, "x")...)
		v.Attributes = append(v.Attributes, spec.Attribute{Name: "x", Value: ""})
	})
	altered(authentication, "bound-removed", "A name was removed from the bound ones, and its attribute.", func(v *spec.Vector) {
		v.Envelope[boundAt-1]--
		v.Envelope = slices.Delete(v.Envelope, boundAt, boundAt+1+len("action"))
		without(v, "action")
	})
	altered(authentication, "bound-none", "All names were removed from the bound ones; their attributes arrived.", func(v *spec.Vector) {
		v.Envelope[boundAt-1] = 0
		v.Envelope = slices.Delete(v.Envelope, boundAt, saltAt)
	})
	altered(authentication, "bound-renamed", "A bound name was changed, in the header and beside it.", func(v *spec.Vector) {
		v.Envelope[boundAt+1] ^= 1 // action becomes `ction
		attribute(v, "action").Name = "`ction"
	})
	altered(authentication, "nonce", "The nonce was changed.", flip(nonceAt))
	altered(authentication, "ciphertext-first", "The first byte of the ciphertext was changed.", flip(cipherAt))
	altered(authentication, "ciphertext-last", "The last byte of the ciphertext was changed.", flip(-17))
	altered(authentication, "ciphertext-cut", "The last byte of the ciphertext was removed.", func(v *spec.Vector) {
		n := len(v.Envelope)
		v.Envelope = slices.Delete(v.Envelope, n-17, n-16)
	})
	altered(authentication, "tag-first", "The first byte of the tag was changed.", flip(-16))
	altered(authentication, "tag-last", "The last byte of the tag was changed.", flip(-1))
	altered(authentication, "tag-zero", "The tag was zeroed.", func(v *spec.Vector) { clear(v.Envelope[len(v.Envelope)-16:]) })
	altered(authentication, "cut", "The last byte is missing.", func(v *spec.Vector) { v.Envelope = v.Envelope[:len(v.Envelope)-1] })
	altered(authentication, "longer", "A byte follows the tag.", func(v *spec.Vector) { v.Envelope = append(v.Envelope, 0) })
	altered(authentication, "emptied", "All of the ciphertext was removed.", func(v *spec.Vector) {
		v.Envelope = slices.Delete(v.Envelope, cipherAt, len(v.Envelope)-16)
	})
	altered(authentication, "message-id", "Another message ID arrived.", func(v *spec.Vector) { v.MessageID = "72d3162e-cc78-11e3-81ab-4c9367dc0959" })
	altered(authentication, "session-id", "Another session ID arrived.", func(v *spec.Vector) { v.SessionID = "octo/repo#43" })
	altered(authentication, "session-id-removed", "The session ID did not arrive.", func(v *spec.Vector) { v.SessionID = "" })
	altered(authentication, "content-type", "Another content type arrived.", func(v *spec.Vector) { v.ContentType = "text/plain" })
	altered(authentication, "content-type-removed", "The content type did not arrive.", func(v *spec.Vector) { v.ContentType = "" })
	altered(authentication, "correlation-id", "Another correlation ID arrived.", func(v *spec.Vector) { v.CorrelationID = "req-80" })
	altered(authentication, "correlation-id-removed", "The correlation ID did not arrive.", func(v *spec.Vector) { v.CorrelationID = "" })
	altered(authentication, "fields-swapped", "Session ID and correlation ID were exchanged.", func(v *spec.Vector) {
		v.SessionID, v.CorrelationID = v.CorrelationID, v.SessionID
	})
	altered(authentication, "attribute", "A bound attribute has another value.", func(v *spec.Vector) { attribute(v, "event").Value = "push" })
	altered(authentication, "attribute-emptied", "A bound attribute has an empty value.", func(v *spec.Vector) { attribute(v, "event").Value = "" })
	altered(authentication, "attributes-swapped", "Two bound attributes have each other's value.", func(v *spec.Vector) {
		a, b := attribute(v, "event"), attribute(v, "action")
		a.Value, b.Value = b.Value, a.Value
	})
	l.add("authentication-session-id-added", func(r *recipe) {
		r.sent.SessionID = ""
		r.seal()
		r.v.SessionID = "octo/repo#42"
		r.fails(authentication, "A session ID arrived and none was sealed.")
	})
	l.add("authentication-app-data", func(r *recipe) {
		r.v.Domain, r.v.AssociatedData = spec.App, []byte("part 3")
		r.directHeader()
		r.seal()
		r.v.AssociatedData = []byte("part 4")
		r.fails(authentication, "Direct use with other associated data.")
	})
}
