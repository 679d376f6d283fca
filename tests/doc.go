// Package tests is the root of a module that is never tagged. It holds what
// measures this library, and suites whose peers are heavy.
//
//	go test .             what released packages depend on; Wycheproof's AES-256-GCM
//	                      vectors through the envelope's primitive
//	go test -bench . .    envelopes beside plain AES-256-GCM, in one run
//	go test ./otelqueue   metrics and spans, read through OpenTelemetry's SDK and Prometheus
//	bench                 a module of its own: this library beside what a program might use instead
package tests
