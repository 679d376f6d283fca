// Package redisreplay is a replay.Store in Redis, shared by the receivers of a fleet.
//
// # Requests
//
// A call makes one request: a script and WAIT in one pipeline on one connection. The
// state machine is Go's, and stands once for all stores. A Store remembers what it last
// saw of a stream, computes what to write, and the script writes if that is still so. It
// answers with what has changed otherwise, so that another receiver in between costs one
// more request, and so does a stream that this process meets for the first time. Calls
// that are made while a request is under way share the next one.
//
// # Where it is safe
//
// What Redis confirms can be lost if the server crashes or fails over. So a call
// succeeds only if
//
//   - the server keeps an append-only file and syncs it with each write (appendfsync
//     always), unless Options.Fsync says otherwise;
//   - it evicts nothing (maxmemory-policy noeviction);
//   - all of its replicas have the write. Options.Replicas can lower their number,
//     which is unsafe: a failover to a replica that has not confirmed loses what was
//     consumed, and it can be replayed while it is fresh.
//
// The server is checked when a Store opens, and again before anything is written after
// its replication ID changed, as after a restart or a failover. A call that fails may
// have written any part: repeat it. A receiver that gets no answer handles nothing.
//
// All replicas means the most that the server ever had while its replication ID was the
// same. A primary that is cut off from its replicas therefore confirms nothing, although
// it counts none as connected after a while. If one is removed for good, set
// Options.Replicas, or restart the primary.
//
// A memory that was flushed is another one, with another ID (replay.Stamp). So is one that
// came back from a crash, a failover or a backup without writes that it had confirmed: the
// first Store that remembers their change number notices, and gives the memory another ID
// and another birth, so that the receivers of all processes notice.
//
// # Time
//
// Leases are judged by the server's clock. A Store estimates it from the last answer and
// the time since, and the script refuses an estimate that is ahead of the clock or far
// behind it.
//
// # Keys
//
// All keys begin with the prefix in braces, {queue-runtime} by default. The braces are a
// hash tag: a store lies on one slot of a cluster. Give stores different prefixes to
// spread them. A store is one memory with one ID for all of its groups.
//
// # What it is tested with
//
// Redis 7.0, alone, with a replica, with Sentinel, and as a cluster. The script needs
// Redis 6.2. Valkey has the same commands and is not tested.
package redisreplay
