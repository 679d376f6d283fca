// Package keys holds the secrets that messages are sealed with, and the
// providers that give them out.
//
// A [Key] is 256 bits with a name. Its bytes cannot be printed, logged or
// encoded; they are used only to derive, and zeroed when the key is destroyed
// or dropped. A [Provider] answers which keys there are and which one is
// current: [Ring] from memory, [File] from a file, [Folder] from a mounted folder, [Env]
// from the environment, [Cached] in front of a secret store. Providers outside of this package pass
// the suite in keys/keytest.
//
// A key is a master key or a sender key (qre1, Section 3.1). Receivers hold master
// keys. A program that only sends can do with [Key.Sender], the sender key of its
// own sender ID, with which it neither reads nor forges what others send.
//
// One ID names one key for ever. There is no fallback key and no trial of
// several: a message names its key, and that one is looked up.
//
// What the package does not do: it stores no key but through [UpdateFile],
// contacts no secret store itself, and logs nothing; [CachedOptions] and
// [FileOptions] have hooks for that. It judges no expiry: a key that is past it
// still opens, and package queue refuses to seal with it.
//
// # Concurrency
//
// Every method is safe for concurrent use. Only Cached starts goroutines, and
// its Close ends them.
//
// # Errors
//
// The errors of this package wrap one of the sentinels below and never hold key
// material. ErrNotFound means that there surely is no such key, ErrUnavailable
// that the provider could not tell.
package keys
