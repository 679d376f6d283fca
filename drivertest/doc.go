// Package drivertest tests drivers: [Conformance] holds a driver to the contract
// of package driver, [Attacks] holds the whole library, over that driver, to the
// threat model.
//
// Both are plain functions over a small interface [T], so that the same suite
// runs under go test (see [New] and [NewIn]) and from a command against a live
// broker (see [Run]). A driver's test describes its broker once, as a [Harness]:
//
//	func TestConformance(t *testing.T) {
//		drivertest.Conformance(drivertest.New(t), harness())
//	}
//
// The suites exercise what a driver claims in its Capabilities and expect
// errors.ErrUnsupported of everything else; nothing is taken on trust and no
// claim goes untested. Each case makes queues of its own and leaves them behind;
// removing them is the harness's business, in T.Cleanup.
//
// # Time
//
// The suites never sleep to let something happen: they wait in Receive. They
// let time pass only where the contract is about time passing (a lock that runs
// out, a message that must not come yet), in units of the lock that the queue
// reports. All waiting goes through package time, so a driver over memory runs
// in a testing/synctest bubble in no time.
package drivertest
