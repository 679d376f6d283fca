// Package wire is the codec of AMQP 1.0: type system, frames, performatives and
// message sections, as far as the Service Bus emulator speaks it.
//
// It is a codec of its own on purpose. The clients that the emulator is tested
// with bring theirs (go-amqp, rhea), so one misreading of the specification
// cannot hide in both ends of a connection.
//
// Decoding is strict and bounded. Nesting is limited to [MaxDepth], the values
// of one decoding to [MaxValues], and nothing is allocated for a count that the
// remaining bytes could not hold. No input panics. What is decoded refers to
// the input for binary values only; everything else is copied.
//
// Encoding chooses the shortest form of scalars and the 32-bit form of
// compounds, and always writes descriptors as smallulong if they fit: some
// clients read no other form.
//
// The package does no I/O beyond [ReadFrame]'s reader, keeps no clock, and all
// its functions are safe for concurrent use.
//
// Section numbers are those of OASIS AMQP 1.0 (2012): "types 1.6", "transport
// 2.7", "messaging 3.2", "security 5.3".
package wire
