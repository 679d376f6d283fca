// Package smkeys provides keys that are stored in AWS Secrets Manager.
//
// A [Provider] asks the service at every call; put keys.NewCached in front of
// it, which bounds the calls, survives outages and keeps a flood of forged key
// IDs away from the service. The SDK's configuration brings the credentials.
//
// # Layouts
//
// With [Secrets], the default, each key is a secret of its own. One more secret, the
// pointer, says which keys are valid. For the name "qrt/pulls":
//
//	qrt/pulls             the pointer: the current key ID, or JSON
//	                      {"current":"2026-02","valid":["2026-01","2026-02"]}
//	qrt/pulls/2026-01     a key
//	qrt/pulls/2026-02     another
//
// If the pointer is a bare ID, the valid keys are those that its stages AWSPENDING,
// AWSCURRENT and AWSPREVIOUS name, so that one move of the stages is one step of a
// rotation: a pending key opens and does not seal, a previous one still opens. If the
// pointer is JSON, the valid keys are those listed under the three stages. A ":" in a
// key ID becomes a "+" in the name of its secret, because Secrets Manager does not
// allow a colon.
//
// With [Versions] one secret holds all keys: each version with a staging label is a
// key whose ID is the version ID, and the version AWSCURRENT seals. That is what
// Secrets Manager's own rotation produces. It keeps AWSPENDING, AWSCURRENT and
// AWSPREVIOUS; to keep an older key for opening, give its version a label of your
// own. A version without labels is not a key.
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
// has marked it for deletion, or that the key is not among the valid ones. Any other
// failure of the service is ErrUnavailable. So are a missing permission, a missing
// pointer and a missing secret of all keys: an operator may grant or restore them, and
// messages must wait for that. A value that is not a key, and a different value under
// an ID that was used before, are ErrInvalidKey. Texts name the secret and the reason,
// never a value.
package smkeys
