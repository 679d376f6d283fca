// Package queuetest is for the tests of applications that use package queue.
//
// [New] gives a [Fixture]: a client with keys and a replay store over a broker in
// memory, and a look at what was sent. Its broker is a [Proxy], which can also be
// put around any other driver: it makes calls slow, makes them fail before or
// after they had their effect, throttles, duplicates, reorders and takes locks
// away; and it does what an attacker at the broker does: it sees, keeps, alters,
// repeats and invents messages.
//
// All of it works inside a testing/synctest bubble, where it takes no time. A
// Proxy is safe for concurrent use and starts no goroutine.
package queuetest
