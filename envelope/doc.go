// Package envelope implements QRE1, the message envelope of spec/qre1.md:
// AES-256-GCM under a derived key, with a key commitment, a header that says in
// the clear what a receiver must know before it can open, and additional data
// that binds the message's metadata.
//
// A [Sealer] seals under one key as one sender, [Parse] reads an envelope without a
// key, and an [Opener] opens it with the [Deriver] that its key ID names. What
// opens was sealed, unaltered, by a holder of that sender's key or of the master
// key, with that header and that context. That says nothing of when: freshness,
// replay and the acceptance of origin and sender are up to the receiver, which
// judges by the authenticated header.
//
// The package fills in no stream and no sequence: a sender numbers its messages
// itself, and must not use one sequence of a stream for two of them. A [Padding]
// hides the length of a plaintext.
//
// The package turns bytes into bytes. It does no I/O, keeps no clock (times are
// arguments, in Unix milliseconds), logs nothing and takes randomness from
// crypto/rand alone. It imports the standard library only, without unsafe, and
// works under GODEBUG=fips140=only. Input never panics, and nothing is allocated
// on the word of a length that was not checked.
//
// Every failure to authenticate is the one error [ErrAuthenticationFailed]; which
// check failed is not told. No claim is made that all failures take one time.
//
// Sealer and Opener are safe for concurrent use. Functions that append take a
// destination that must not overlap their other arguments; they say so with an
// error instead of corrupting them, and on error return nil.
//
// Built with GOEXPERIMENT=runtimesecret, derivation, sealing and opening run in
// runtime/secret.Do, which erases registers, stack and dropped key schedules.
// Otherwise an AES key schedule stays in memory until it is collected.
package envelope
