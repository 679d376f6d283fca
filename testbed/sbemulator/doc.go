// Package sbemulator is an emulator of the part of Azure Service Bus that a
// queue's clients use, over real AMQP 1.0 on loopback.
//
//	s, err := sbemulator.Start(nil)
//	defer s.Close()
//	err = s.CreateQueue("orders", &sbemulator.QueueOptions{RequiresSession: true})
//	client, err := azservicebus.NewClientFromConnectionString(s.ConnectionString(), nil)
//
// It is for tests and for developing without a namespace. A test that passes
// against it shows that a client speaks the protocol; it does not show how
// Azure behaves. Everything is in memory and gone at Close. There is no TLS, no
// partitioning, no transaction, no topic, no forwarding, no WebSockets and no
// HTTP administration.
//
// # What it does
//
// Peek-lock and receive-and-delete; complete, abandon, defer, dead-letter and
// release, over the link and over $management; delivery counts and their
// maximum; lock expiry and renewal; dead-letter queues; sessions by name and
// the next one, with lock, renewal, state and listing; scheduled messages and
// their cancelling; peek; time to live; duplicate detection; batches; limits of
// size; claims at $cbs, verified if [Options.Key] is set.
//
// What the service's documents leave open is decided like this:
//
//   - A lock that ends is counted as a failed delivery, and so is the lock of a
//     session that runs out. A session that its receiver closes, or whose
//     connection is lost, is not, and a released message is not.
//   - Closing a receiver without a session, or losing its connection, leaves its
//     messages locked until their locks run out.
//   - Dead letters keep their sequence number, their count and their time of
//     arrival. Their count goes on; it has no maximum. They do not expire.
//   - Requests about several messages (renew, settle, cancel, receive deferred)
//     are carried out for all of them, or for none when one of them cannot be.
//   - Renewing the lock of a message in a session is refused: renew the session.
//   - A locked message does not expire before it comes back, a deferred one not
//     before it is asked for.
//   - Only the reason and the properties of a dead letter tell who dead-lettered it:
//     x-opt-deadletter-source is set by forwarding, which the emulator does not have.
//   - The limits of properties (32 KiB each, 64 KiB in all) are not enforced, nor
//     that a batch to a partitioned queue is of one session.
//   - The bare message arrives byte for byte as it was sent, with two exceptions: a
//     message without an ID gets one, of 32 hex digits, and abandoning, deferring or
//     dead-lettering sets application properties.
//   - A message above the link's limit is rejected with
//     amqp:link:message-size-exceeded, and the link goes on. If it was sent settled,
//     which asks for no outcome, the link is detached with that error.
//   - A request at $cbs or $management is answered over the receiver at the same node
//     whose target address, or else whose link name, is its reply-to. If there is
//     none, the request is not carried out and its link is detached.
//
// # What a test can do with it
//
// [Server.Advance] moves the clock of locks, times to live and schedules.
// [Server.Inject] makes operations fail, late or halfway; [Server.DropConnections],
// [Server.DetachLinks], [Server.ExpireLock] and [Server.ExpireSession] strike at
// once. [Server.Messages], [Server.Alter], [Server.Move], [Server.Duplicate],
// [Server.Insert] and [Server.Remove] work on the store itself, past every
// check: with them a test plays a broker that cheats.
//
// # Concurrency and limits
//
// All methods of [Server] and [Injection] are safe for concurrent use. The
// server owns its goroutines: one that listens, one that keeps time, and two a
// connection. None is left when Close returns.
//
// Clients are not trusted. Frames are bounded to 64 KiB, messages to the
// queue's limit, nesting and the number of values by package wire, sessions,
// links, claims and connections by the constants beside them; all before anything
// is allocated. Incomplete messages, answers that are not read and messages for which
// no client has a window are bounded to 512 MiB in all. Messages with their overhead,
// and states of sessions, count against the size of their queue. A queue remembers at
// most 262,144 message IDs, whatever its window. A malformed frame ends the link,
// session or connection that it came over, with the condition that AMQP has for it;
// only the end of an AMQP session that never began is ignored, because Microsoft's
// client sends it.
package sbemulator
