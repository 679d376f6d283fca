// Package observe defines what the library tells metrics and traces: the
// [Observer], one type for each kind of event, and the operations that spans are
// made of. Package otelqueue implements it with OpenTelemetry.
//
// Events and operations carry names, counts, times and codes, never a payload or a key.
// Message, session and correlation IDs are on operations only: they belong on spans,
// not in labels of metrics. Before a message is authenticated its IDs and key ID are as
// the broker says.
//
// # Concurrency
//
// Methods of an Observer are called from many goroutines at once, on the path of
// each message. They must not block, and must not keep the maps and slices that
// they are given.
//
// # Errors
//
// Nothing here returns an error: a program does not fail because it is observed.
package observe
