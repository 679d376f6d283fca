// Package smkeys gives out keys that lie in AWS Secrets Manager.
//
// A [Provider] asks the service at every call; put keys.NewCached in front of
// it, which bounds the calls, survives outages and keeps a flood of forged key
// IDs away from the service. Credentials are those of the SDK's configuration.
//
// # Layouts
//
// With [Secrets], the default, each key is a secret of its own and one more, the
// pointer, says which are valid. For the name "qrt/pulls":
//
//	qrt/pulls             the pointer: the current key ID, or JSON
//	                      {"current":"2026-02","valid":["2026-01","2026-02"]}
//	qrt/pulls/2026-01     a key
//	qrt/pulls/2026-02     another
//
// Where the pointer is a bare ID, valid are those under its stages AWSPENDING,
// AWSCURRENT and AWSPREVIOUS, so that one move of stages is one step of a
// rotation: a pending ID is accepted and not sealed with, a previous one still
// opens. With JSON valid are those named under the three stages. A ":" in a key
// ID is a "+" in the name of its secret, because Secrets Manager has no colon.
//
// With [Versions] one secret holds all keys: each version that has a staging
// label is one, its ID is the version ID, and AWSCURRENT is the one to seal
// with. That is what Secrets Manager's own rotation makes. It keeps AWSPENDING,
// AWSCURRENT and AWSPREVIOUS; to keep an older key for opening, give its version
// a label of your own. A version without labels is not given out.
//
// A master key is 32 bytes: as SecretBinary, as base64 (RFC 4648, Section 4) in
// SecretString, or as JSON with that base64 under "secret" and, if wanted,
// "created" and "expires" (RFC 3339), "queues" and "id". Without "created" it is
// when the version was made. A sender key is JSON with "sender" and
// "sender_secret" in the place of "secret": the fields of a key in a key file,
// as qrt keys sender-key writes them.
//
// # Errors
//
// ErrNotFound means that Secrets Manager has no secret or version of that key, or
// has it marked for deletion, or that the key is not among the valid ones.
// Everything else that goes wrong at the service is ErrUnavailable, a missing
// permission included, and a pointer or a secret of all keys that is not there: it
// may be granted or restored, and messages must wait for that. Material that is
// no key, and another secret under an ID that had one before, is ErrInvalidKey.
// Texts name the secret and the reason, never a value.
package smkeys
