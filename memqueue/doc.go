// Package memqueue is a broker in the memory of one process: for tests, for
// demonstrations, and as the fake of everyone who uses package queue.
//
// It has all that package driver can express, and keeps every promise of it
// exactly: counts are true, locks are fenced, nothing is approximate. It is not
// durable, and it is no broker between processes.
//
// # Order
//
// Messages stand in the order in which they were sent, and keep that place: one
// that is abandoned or released, or whose lock runs out, is delivered before those
// behind it. Only driver.Release takes the delivery off the count. A lock that runs
// out always counts, so that a message which ends its process reaches MaxDeliveries.
// A scheduled message takes its place when it is due and holds up nobody before.
//
// Receive on a queue also delivers messages that belong to sessions, at most one
// of a session at a time. While one is held, or waits out the delay of an
// abandon, no later message of its session is delivered, save to whoever holds
// the session, and a delay holds up the session's holder too. AcceptSession with
// no name serves the sessions in the order in which they came free.
//
// # Time
//
// Locks, schedules and lifetimes follow package time, so that they run in a
// testing/synctest bubble. What is due happens in the next call that could see
// it, or wakes the calls that wait for it.
//
// # Concurrency
//
// Everything is safe for concurrent use. An idle broker has no goroutine, and
// only waiting calls have a timer; after Close there is none. Every operation
// takes logarithmic time in the number of messages, amortised.
package memqueue
