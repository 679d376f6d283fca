package envelope

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/queue-runtime/queue/spec"
)

// forgery is an envelope made by other means than a Sealer, by a holder of the
// key, so that it can break one rule and be right in all else.
type forgery struct {
	prefix     []byte // the header without salt and commitment
	keyID      string // for the derivation, as sender
	sender     string
	domain     string
	data       []byte           // context or associated data
	inner      []byte           // what is encrypted
	commitment func(okm []byte) // changes it before it is authenticated; nil: not
}

// forge is what the recipe's Sealer would be asked for.
func (r *recipe) forge() *forgery {
	r.t.Helper()
	r.seal()
	f := &forgery{keyID: r.header.KeyID, sender: r.header.Sender, domain: domainApp, data: r.v.AssociatedData, inner: r.v.Plaintext}
	if r.v.Domain == spec.Queue {
		f.domain, f.data = domainQueue, testData(r.t, &r.sent, r.header.Bound)
	}
	encoded, err := r.header.AppendTo(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	f.prefix = encoded[:len(encoded)-SaltSize-CommitmentSize]
	return f
}

func (f *forgery) envelope(t *testing.T, key Deriver) []byte {
	t.Helper()
	var salt Salt
	_, _ = rand.Read(salt[:])
	okm, err := key.Derive(f.sender, infoOf(f.keyID, salt[:]))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := newAEAD(okm[:32])
	if err != nil {
		t.Fatal(err)
	}
	if f.commitment != nil {
		f.commitment(okm[32:])
	}
	header := slices.Concat(f.prefix, salt[:], okm[32:])
	aad := slices.Concat([]byte(f.domain), binary.BigEndian.AppendUint32(nil, uint32(len(header))), header, f.data)
	return append(header, aead.Seal(nil, nil, f.inner, aad)...)
}

// sequenceVectors are the envelopes that are none because of stream, sequence, and
// what follows from them.
func sequenceVectors(l *recipes) {
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	u64 := func(list ...uint64) (b []byte) {
		for _, n := range list {
			b = binary.BigEndian.AppendUint64(b, n)
		}
		return b
	}
	set := func(at int, n uint64) func([]byte) []byte {
		return func(b []byte) []byte {
			copy(b[at:], u64(n))
			return b
		}
	}
	void := func(n ...uint64) func([]byte) []byte {
		return func(b []byte) []byte {
			return slices.Replace(b, voidAt, keyIDAt-1, append([]byte{byte(len(n) / 2)}, u64(n...)...)...)
		}
	}
	// direct clears what a header of direct use must not have, but for one field.
	direct := func(from, to int) func([]byte) []byte {
		return func(b []byte) []byte {
			kept := bytes.Clone(b[from:to])
			clear(b[streamAt:fixedSize])
			if from != voidAt {
				b = slices.Replace(b, voidAt, keyIDAt-1, 0)
			}
			copy(b[from:], kept)
			return b
		}
	}
	resealed := func(alter func([]byte) []byte) func([]byte) []byte {
		return func(b []byte) []byte { return alter(set(resealedAtAt, 1)(b)) }
	}
	malformed := l.malformed

	malformed("stream-cut", "stream", "The end in the stream.", cut(sequenceAt-1))
	malformed("sequence-cut", "sequence", "The end in the sequence.", cut(settledAt-1))
	malformed("sequence-late", "sequence", "A sequence of 2^53.", set(sequenceAt, MaxSequence+1))
	malformed("sequence-highest", "sequence", "A sequence with its highest bit set.", set(sequenceAt, 1<<63|4711))
	malformed("settled-cut", "settled", "The end in settled.", cut(previousAt-1))
	malformed("settled-equal", "settled", "settled is the sequence itself.", set(settledAt, 4711))
	malformed("settled-above", "settled", "settled with its highest bit set.", set(settledAt, 1<<63|4709))
	malformed("previous-cut", "previous", "The end in previous.", cut(resealedAtAt-1))
	malformed("previous-equal", "previous", "previous is the sequence itself.", set(previousAt, 4711))
	malformed("previous-above", "previous", "previous with its highest bit set.", set(previousAt, 1<<63|1))
	malformed("resealed-at-cut", "resealed_at", "The end in resealed_at.", cut(fixedSize-1))
	malformed("resealed-at-late", "resealed_at", "resealed_at in the year 10000.", set(resealedAtAt, MaxTime+1))
	malformed("resealed-at-negative", "resealed_at", "resealed_at with its highest bit set.", set(resealedAtAt, 1<<63))
	malformed("void-missing", "void ranges", "The end before the number of void ranges.", cut(voidAt))
	malformed("void-cut", "void ranges", "The end in a void range.", cut(keyIDAt-2))
	malformed("void-promised", "void ranges", "Eight void ranges are promised and the body ends.", func(b []byte) []byte { return append(b[:voidAt], 8) })
	malformed("void-nine", "void ranges", "Nine void ranges.", void(1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15, 17, 17))
	malformed("void-zero", "void ranges", "A void range from 0 on.", void(0, 3))
	malformed("void-backward", "void ranges", "A void range that ends before it begins.", void(5, 4))
	malformed("void-descending", "void ranges", "Void ranges that descend.", void(7, 8, 3, 4))
	malformed("void-twice", "void ranges", "A void range that comes twice.", void(3, 4, 3, 4))
	malformed("void-overlapping", "void ranges", "Void ranges with one sequence in common.", void(3, 5, 5, 6))
	malformed("void-beyond", "void ranges", "A void range that goes beyond settled.", void(4707, 4710))
	malformed("direct-stream", "stream", "A stream, and a sequence of 0.", direct(streamAt, sequenceAt))
	malformed("direct-settled", "settled", "settled in a header of direct use.", direct(settledAt, previousAt))
	malformed("direct-previous", "previous", "previous in a header of direct use.", direct(previousAt, resealedAtAt))
	malformed("direct-resealed-at", "resealed_at", "resealed_at in a header of direct use.", resealed(direct(resealedAtAt, fixedSize)))
	malformed("direct-void", "void ranges", "A void range in a header of direct use.", direct(voidAt, keyIDAt-1))
}

// forgedVectors are sealed by a holder of the key, with everything right but one
// check.
func forgedVectors(l *recipes) {
	forged := func(layer spec.Layer, name, comment string, alter func(*recipe, *forgery), before ...func(*recipe)) {
		l.add(string(layer)+"-"+name, func(r *recipe) {
			for _, f := range before {
				f(r)
			}
			f := r.forge()
			alter(r, f)
			r.v.Envelope = f.envelope(r.t, r.key)
			r.fails(layer, comment)
		})
	}
	directly := func(r *recipe) {
		r.v.Domain, r.v.AssociatedData = spec.App, []byte("part 3")
		r.directHeader()
	}
	// asQueue has the message opened as one of a queue.
	asQueue := func(r *recipe) {
		r.v.Domain, r.v.AssociatedData = spec.Queue, nil
		r.v.MessageID = r.sent.MessageID
	}
	asApp := func(r *recipe, data []byte) {
		r.v.Domain, r.v.AssociatedData = spec.App, data
		r.v.MessageID, r.v.SessionID, r.v.ContentType, r.v.CorrelationID, r.v.Attributes = "", "", "", "", nil
	}
	messageID := func(r *recipe) []byte { return testData(r.t, &Context{MessageID: r.sent.MessageID}, nil) }

	forged(spec.LayerUse, "queue-direct", "A header of direct use, sealed as a message of a queue, and opened as one.", func(r *recipe, f *forgery) {
		f.domain, f.data = domainQueue, messageID(r)
		asQueue(r)
	}, directly)
	forged(spec.LayerUse, "app-sequence", "A header with a sequence, sealed by direct use, and opened so.", func(r *recipe, f *forgery) {
		f.domain, f.data = domainApp, []byte("part 3")
		asApp(r, f.data)
	})
	forged(spec.LayerUse, "app-as-queue", "Sealed by direct use, with the encoding of a context as associated data, and opened as a message of a queue.", func(r *recipe, f *forgery) {
		f.data = messageID(r)
		asQueue(r)
	}, directly)
	forged(spec.LayerUse, "queue-as-app", "Sealed as a message of a queue, and opened by direct use with the encoding of its context as associated data.", func(r *recipe, f *forgery) {
		asApp(r, f.data)
	})
	forged(spec.LayerAuthentication, "domain-app", "A header with a sequence, with the additional data of direct use, opened as a message of a queue.", func(_ *recipe, f *forgery) {
		f.domain = domainApp
	})
	forged(spec.LayerAuthentication, "domain-queue", "A header of direct use, with the additional data of a queue's message, opened by direct use.", func(_ *recipe, f *forgery) {
		f.domain = domainQueue
	}, directly)

	l.add("key-zero", func(r *recipe) {
		r.key = &masterKey{secret: make([]byte, 32)}
		r.seal()
		r.fails(spec.LayerKey, "A master key of zeros: none.")
		r.v.Expect = spec.KeyNotFound
	})

	forged(spec.LayerContext, "message-id-empty", "No message ID arrived, and none was sealed.", func(r *recipe, f *forgery) {
		f.data = f.data[1+4+len(r.sent.MessageID):] // tag, length, value
		r.v.MessageID = ""
	})
	forged(spec.LayerContext, "attribute-empty", "A bound attribute with an empty value did not arrive.", func(r *recipe, _ *forgery) {
		r.v.Attributes = slices.DeleteFunc(r.v.Attributes, func(a spec.Attribute) bool { return a.Name == "event" })
	}, func(r *recipe) { r.sent.Attributes["event"] = "" })
	forged(spec.LayerContext, "attribute-skipped", "A bound attribute did not arrive, and was left out when the message was sealed.", func(r *recipe, f *forgery) {
		f.data = testData(r.t, &r.sent, []string{"action"})
		r.v.Attributes = slices.DeleteFunc(r.v.Attributes, func(a spec.Attribute) bool { return a.Name == "event" })
	})
	forged(spec.LayerContext, "attribute-twice", "A bound attribute arrived twice, with one value.", func(r *recipe, _ *forgery) {
		r.v.Attributes = append(r.v.Attributes, r.v.Attributes[0])
	})
	forged(spec.LayerContext, "attribute-twice-unbound", "An attribute that is not bound arrived twice.", func(r *recipe, _ *forgery) {
		x := spec.Attribute{Name: "x", Value: "1"}
		r.v.Attributes = append(r.v.Attributes, x, x)
	})

	forged(spec.LayerCommitment, "first", "The key commitment differs in its first byte, and is authenticated so.", func(_ *recipe, f *forgery) {
		f.commitment = func(b []byte) { b[0] ^= 1 }
	})
	forged(spec.LayerCommitment, "last", "The key commitment differs in its last byte, and is authenticated so.", func(_ *recipe, f *forgery) {
		f.commitment = func(b []byte) { b[31] ^= 1 }
	})
	forged(spec.LayerCommitment, "zero", "The key commitment is zero, and is authenticated so.", func(_ *recipe, f *forgery) {
		f.commitment = func(b []byte) { clear(b) }
	})
	forged(spec.LayerCommitment, "sender-other", "Sealed with the sender key of another sender.", func(_ *recipe, f *forgery) { f.sender = "router/eu-2" })
	forged(spec.LayerCommitment, "sender-master", "Sealed by a sender as a holder of the master key.", func(_ *recipe, f *forgery) { f.sender = "router/eu-1" }, func(r *recipe) { r.header.Sender = "" })
	l.add("commitment-sender-skipped", func(r *recipe) {
		f := r.forge()
		r.v.Envelope = f.envelope(r.t, &senderKey{f.sender, r.key.secret})
		r.fails(spec.LayerCommitment, "The master key was taken for the sender key.")
	})
	l.add("commitment-sender-derived-twice", func(r *recipe) {
		f := r.forge()
		r.v.Envelope = f.envelope(r.t, &masterKey{secret: senderSecret(r.key.secret, f.sender)})
		r.fails(spec.LayerCommitment, "The sender key was taken for a master key.")
	})

	padded := func(name, comment string, inner ...byte) {
		forged(spec.LayerPadding, name, comment, func(_ *recipe, f *forgery) {
			f.prefix[flagsAt] = flagPadded
			f.inner = inner
		})
	}
	padded("none", "The padded flag, and nothing encrypted.")
	padded("length-cut", "The padded flag, and three bytes.", 0, 0, 0)
	padded("length-long", "A length of one byte more than there is.", 0, 0, 0, 4, 'a', 'b', 'c')
	padded("length-longest", "The longest length.", 0xff, 0xff, 0xff, 0xff, 'a', 'b', 'c')
	padded("first", "A first byte of padding that is not zero.", 0, 0, 0, 1, 'a', 1, 0, 0)
	padded("last", "A last byte of padding that is not zero.", 0, 0, 0, 1, 'a', 0, 0, 0x80)
}
