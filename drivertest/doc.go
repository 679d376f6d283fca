// Package drivertest tests that a driver keeps the contract of package driver.
//
// The author of a driver does three things:
//
//  1. Describe a broker. A [Harness] starts a broker for a test, or finds one that
//     runs, and returns an [Instance]: how to connect, how to create a queue, and
//     which names are invalid.
//  2. Run the [Cases]. Each tests what the driver's Capabilities claim, and expects
//     an error that wraps errors.ErrUnsupported for what they do not claim. Over a
//     broker in memory, run each case in a bubble of testing/synctest, in which
//     waiting costs no time.
//  3. Write an [Attacker], which reads and changes what the broker stores without
//     the driver's code, set Instance.Attacker to it, and run the cases of package
//     attacktest. They test that messages in this broker can be neither read, nor
//     forged, nor replayed by its operator.
//
// The second step in full:
//
//	func TestConformance(t *testing.T) {
//		for _, c := range drivertest.Cases(harness()) {
//			t.Run(c.Name, func(t *testing.T) { c.Run(t) })
//		}
//	}
//
// Every case creates its own queues and leaves them to the harness, which removes
// them by T.Cleanup.
//
// # Time
//
// Cases never sleep to let something happen: they wait in Receive. They let time
// pass only if the contract is about time (a lock that ends, a scheduled message),
// in units of the lock that the queue reports, and through package time.
//
// # Outside of go test
//
// [Run] runs a case without package testing, for a command that checks a broker.
package drivertest
