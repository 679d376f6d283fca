// Package attacktest performs the attacks of the threat model
// (docs/threat-model.md) on the library, over any broker whose storage the test
// can change.
//
// Each attack has a sender and a receiver, which use package queue as an
// application does, and an attacker, which changes what the broker stores through
// a [drivertest.Attacker]. The attack succeeds for the library if no forged
// message is delivered, no honest message is lost, rejected or delivered twice,
// each attempt is dead-lettered or abandoned as the threat model says, and
// metrics and dead letters name the right cause.
//
// A driver's test runs all attacks on the [drivertest.Harness] that it already
// has:
//
//	for _, c := range attacktest.Cases(harness(), 0) {
//		t.Run(c.Name, func(t *testing.T) { c.Run(t) })
//	}
//
// The attacks test the library and not the driver: the contract of package driver
// is tested by package drivertest.
package attacktest
