// Package dynamoreplay is a replay.Store in a DynamoDB table, shared by receivers on
// many machines and durable.
//
// The table must lie outside the reach of the queue's operators: in an account of
// its own, or under a policy that gives the receivers' role alone the right to write
// (docs/replay/dynamodb.md has policies). An operator who can delete the table, or
// write in it, can have messages handled again.
//
// # Requests
//
// A call reads and writes pages of 256 sequences of a stream. Begin and Finish are one
// conditional UpdateItem for each page that the messages of the call are on, all side
// by side: one round trip and, for messages of one sender, one request. A receiver
// whose copy of a page is old gets the present one with the refusal, and tries again.
// The first message on a page costs some eight requests more. There are no
// transactions; a call that fails may have done a part, and can be repeated.
//
// # Claims
//
// DynamoDB has no clock that a condition could use. The claim of a receiver that crashed ends
// once another process has seen it unchanged for a whole lease, by its own clock: the
// message is refused once, and granted at the next delivery. See package replay/cas.
//
// # One region
//
// A global table lets two regions write one item and keeps the later write: both
// receivers would think that they won. So a table with replicas is refused, when it is
// opened, with every Probe, and every 15 minutes.
//
// # Nothing expires by itself
//
// A time to live on the table removes nothing, because no attribute is a number. That is
// on purpose: what DynamoDB removes by its own clock leaves no mark behind, so that
// messages of that age could be replayed. Receivers remove what is past its time, after
// they have raised the mark.
//
// # Trouble
//
// A request that is throttled or fails is repeated up to 3 times within a few seconds.
// After that the call fails with an error of package driver, and receiving stops until
// the store answers. An emptied or restored table is noticed by its ID or its change
// number.
package dynamoreplay
