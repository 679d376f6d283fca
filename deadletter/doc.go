// Package deadletter reads, purges and redrives the dead letters of a queue: the
// messages that were rejected, given up by a handler, or delivered too often.
//
//	letters, err := deadletter.Open(ctx, client, "orders", nil)
//	report, err := letters.Redrive(ctx, &deadletter.RedriveOptions{
//		Filter: &deadletter.Filter{Reasons: []string{"max_deliveries"}},
//	})
//
// A [Queue] uses the broker and the options of a queue.Client. It must have the keys, the
// replay store and the group of the queue's receivers, so that a redrive recognises
// replays.
//
// # Delivery
//
// A letter is removed only after its queue has confirmed the copy: a crash in between
// may leave both, never none. Reading changes nothing if the broker can peek. If it
// cannot, letters are received and given back at the end, which counts as a delivery
// of each.
//
// # What it does not do
//
// It does not check why a message failed: reasons, times and key IDs are as the broker
// stored them. It never reseals a letter that may have been handled, unless the caller
// accepts that risk.
//
// # Concurrency and errors
//
// A Queue is safe for concurrent use; two that work on one dead-letter queue take
// letters from each other. Errors are *queue.Error, as in package queue.
package deadletter
