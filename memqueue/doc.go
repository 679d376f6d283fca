// Package memqueue is a broker in the memory of one process: for tests, for
// demonstrations, and as a fake for tests of code that uses package queue.
//
// It has every capability that package driver can express, and none of them is
// approximate: counts are exact and locks are fenced. It is not durable and does not
// connect processes.
//
// # Order
//
// Messages stand in the order in which they were sent, and keep that place: a message
// that is abandoned or released, or whose lock runs out, is delivered before the ones
// behind it. Only driver.Release takes the delivery off the count. A lock that runs
// out always counts, so that a message which ends its process reaches MaxDeliveries.
// A scheduled message takes its place when it is due and delays no message before.
//
// Receive on a queue also delivers messages that belong to sessions, at most one
// of a session at a time. While it is held, or waits out the delay of an abandon, later
// messages of its session are delivered only to the holder of the session; a delay
// stops them for the holder, too. AcceptSession without a name takes the session that
// has been free for the longest time.
//
// # Time
//
// Locks, schedules and lifetimes follow package time, so that they run in a
// testing/synctest bubble. A change that is due takes effect in the next call that
// could see it, and wakes the calls that wait for it.
//
// # Concurrency
//
// Everything is safe for concurrent use. An idle broker has no goroutine, and
// only waiting calls have a timer; after Close there is none. Every operation
// takes logarithmic time in the number of messages, amortised.
package memqueue
