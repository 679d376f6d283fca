// Package intake decides what becomes of messages that were received, and when a
// receiver may fetch.
//
// [Decide] is a pure function from what was found of one message to what is to be
// done with it: the table of DESIGN.md, "What becomes of a message". [Gate] holds the
// two reasons for which a receiver does not fetch: an outage of something that
// messages need, and a pause after messages that did not authenticate. Each is a
// state machine without I/O; Gate alone waits.
//
// The package knows neither brokers nor envelopes. It imports driver for the
// vocabulary: dispositions, reasons, ways to settle.
package intake
