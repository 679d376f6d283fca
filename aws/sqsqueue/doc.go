// Package sqsqueue is the driver for Amazon SQS, standard and FIFO queues.
//
// New takes the SDK's configuration, Open a URL; credentials come from the SDK's
// chain either way. What it returns is for queue.New. docs/brokers/sqs.md has the
// limits, costs and policies.
//
// # Mapping
//
// Sealed bodies travel as base64, marked by an attribute. Plain bodies that are
// text SQS can carry travel as they are, so that other consumers read them, and
// any others as base64 with another mark. Text that begins like a sealed body is
// taken for one even if the mark is gone. Application attributes, at most
// ten, are message attributes of the same name while there is room and SQS can
// hold them; message ID and encoding have attributes of their own, and everything
// else shares one. On a FIFO queue the session is the message group; a message
// without a session is a group of its own.
//
// A FIFO queue's logical name, and so the origin that messages are bound to, is
// its name without ".fifo".
//
// # Receiving
//
// A request brings 10 messages at most. Several calls of Receive on a standard queue make
// several requests at once (Capabilities.ReceiveBatch). A request waits at SQS no longer
// than the calls that it is for, and no longer than the deadlines of their contexts.
//
// A poll that waits at SQS is never cut off while the queue is open: SQS may
// have locked messages for it. It runs on a goroutine of the queue. When it ends, it
// serves the calls that wait then, and gives back the messages that none of them
// takes. Polls ask for no more messages than calls wait for. Close waits for polls, up
// to Options.Poll.
//
// This process's clock decides, conservatively, when a lock is over, because SQS
// accepts settlements through handles whose lock is over. The driver does not send
// such a settlement; it fails with ErrLockLost. No lock lasts longer than 12 hours.
//
// # Order and sessions
//
// While a message of a group is in flight, SQS hands out no other message of that
// group. Receive hands out one message of a group at a time. AcceptSession takes the
// next free group, keeps the messages that SQS sent of it in order, and renews them
// together. It gives all of them back at once if one is abandoned or the session is
// closed. Between two messages nothing is in flight, and SQS may give the next one to
// another process (Capabilities.SessionGaps). Order is kept, and a message has one
// holder at a time, but state that a receiver keeps in memory may be outdated.
//
// # Settling
//
// Completions that come at about the same time share a request. Dead-lettering
// sends a copy to the target of the redrive policy, or to the configured queue,
// and deletes the original after the copy is confirmed. Without a dead-letter queue
// dead-lettering fails, and nothing is deleted. SQS's own redrive by receive count
// works beside it.
//
// SQS counts each receipt (ApproximateReceiveCount), and no request takes one back.
// So driver.Release is the same as driver.Abandon here, and
// Capabilities.ReleaseUncounted is false: each release spends one of the redrive
// policy's receipts.
//
// # What it does not do
//
// SQS cannot peek, accept a session by name, schedule on FIFO queues or more than
// 15 minutes ahead, or expire single messages; a TTL is enforced by the receiver
// from the envelope. The driver creates no queues. The SDK's retryer retries single
// calls; the driver retries nothing else.
package sqsqueue
