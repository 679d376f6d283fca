// Package tests holds what measures this library and what needs test vectors too
// big for the other modules: everything is in its tests.
//
//	go test .             Wycheproof's AES-256-GCM vectors through the envelope's primitive
//	go test -bench . .    envelopes beside plain AES-256-GCM, in one run
package tests
