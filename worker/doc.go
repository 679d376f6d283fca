// Package worker runs handlers for the messages of queues: a [Pool] receives, keeps
// the lock of each message while its handler works, settles the message by what the
// handler returns, and retries. It uses the public API of package queue alone, so an
// application can write another one.
//
//	pool, err := worker.New(nil)
//	...
//	err = pool.Handle(receiver, worker.JSON(func(ctx context.Context, o Order, d *queue.Delivery) error {
//		return ship(ctx, o)
//	}), nil)
//	...
//	err = pool.Run(ctx) // until ctx ends
//
// # Delivery
//
// At least once: a handler can be called again for a message that it handled, after a
// crash or a lost lock. With a replay store a message whose completion was recorded is
// not handled again.
//
// # Order
//
// With HandleOptions.Sessions the messages of one session are handled one at a time
// and in order, and a message that waits for its retry holds back those behind it.
// Without it there is no order.
//
// # Concurrency
//
// Options.Concurrency handlers run at once over all queues. Each queue always gets at
// least one of these slots; the queues that want more share the rest by weight.
// Handlers must be safe for concurrent use. A handler that returned nil has left its slot:
// the next message need not wait until the broker has confirmed the completion. As many
// messages as there are slots can be on their way to be completed, so that a crash repeats
// at most twice as many messages as handlers run at once. One Receiver is enough for a queue: if the calls
// of its broker bring few messages each (Capabilities.ReceiveBatch: 10 on a standard queue
// of SQS), the Pool makes as many of them side by side as free slots need.
// A message that has to be handled alone waits until these calls have ended, for the Wait of
// the Receiver at most, and keeps its lock. It also waits for one of another queue, for 30 s
// at most.
//
// # Stopping
//
// Run drains when its context ends or [Pool.Stop] is called: it stops fetching, waits
// DrainTimeout (15 s) for handlers, then ends their contexts, waits CancelGrace (5 s)
// for them, and 4 s more until what they left is given back. That is 24 s by default,
// because Kubernetes, ECS and Heroku kill a process 30 s after they asked it to end.
// What a drain gives back does not count as a delivery if the broker can do that
// (Capabilities.ReleaseUncounted).
//
// # Errors
//
// Errors of this package are *queue.Error. Invalid options wrap
// queue.ErrInvalidOptions.
package worker
