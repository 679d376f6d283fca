// Package kvkeys provides keys that are stored as secrets in Azure Key Vault.
//
// A [Provider] asks the vault at every call; put keys.NewCached in front of it,
// which bounds the calls, survives outages and keeps a flood of forged key IDs
// away from the vault. The Azure SDK brings the credentials.
//
// # Layouts
//
// With [Secrets], the default, each key is a secret of its own. The name of the
// secret is the provider's NAME, two dashes and the key ID; without a NAME it is
// the key ID alone, and the vault serves one queue. For the name "pulls":
//
//	pulls--2026-01     a key
//	pulls--2026-02     another
//
// A key ID may have characters that Key Vault refuses, and Key Vault does not
// tell upper from lower case: [SecretName] says how an ID is written. A key has
// one enabled version. If it has two, the key is refused until one of them is
// disabled, because one ID names one key for ever.
//
// With [Versions] one secret, NAME, holds all keys, each as a version, and the
// version's tag "qrt-key-id" is the key ID. One role assignment on that secret
// serves all rotations.
//
// # Tags and attributes
//
// The tag "qrt-key" says what a key is for: "valid" opens, "current" also seals. A
// secret with neither is not a key, so that other secrets of the vault cannot be asked
// for. If several are "current", the newest one that is enabled and past its not-before
// date seals. So to switch keys, tag the new one "current"; to prepare a switch, give
// it a not-before date as well.
//
//	disabled            there is no such key any more (ErrNotFound)
//	not-before ahead    opens, does not seal: receivers learn of it in advance
//	expiry passed       opens, does not seal (the key's Expires)
//	created             the key's Created
//
// Key Vault itself enforces the first of these only.
//
// The value of a master key is 32 bytes in base64 (RFC 4648, Section 4). White
// space around it is ignored, nothing else. A sender key is JSON with "sender" and
// "sender_secret", and, if wanted, "created" and "expires" (RFC 3339), "queues" and
// "id": the fields of a key in a key file, as qrt keys sender-key writes them. A
// master key may be JSON as well, with "secret". The earlier of the JSON's and the
// secret's expiry counts.
//
// # Errors
//
// Every failure except the end of the caller's context is an [*Error] with a
// [Reason]. ErrNotFound means that the vault has answered and has no such key, or
// that the key is disabled or not tagged. ErrUnavailable means that the vault does not
// answer, throttles or refuses. It includes a missing permission: an administrator may
// grant it, and messages must wait for that. ErrInvalidKey means that the value is not
// a key, or differs from an earlier value under the same ID. Texts name the secret, the
// reason and what to do, never a value.
//
// After an answer 429, no call of the Provider reaches the vault for as long as it asks
// (Retry-After): all fail with ErrUnavailable at once.
package kvkeys
