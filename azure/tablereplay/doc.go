// Package tablereplay is a replay.Store in Azure Table storage, shared by receivers on
// many machines and durable.
//
// The storage account must lie outside the reach of the queue's operators: the
// receivers' identity alone should have the right to write in the table
// (docs/replay/aztable.md has roles). An operator who can delete the table, or write in
// it, can have messages handled again.
//
// # Requests
//
// A call reads and writes pages of 1,024 sequences of a stream. All pages of a group
// lie in one partition, so Begin and Finish are one request each: an entity group
// transaction of up to 100 pages, each under its ETag. If another receiver has changed
// one of the pages, the transaction does nothing, and each page is written alone, side
// by side. The first message on a page costs some eight requests more. A call that fails
// may have done a part, and can be repeated.
//
// A partition takes some 2,000 entities a second (Scalability targets for Table
// storage), each of which is a page with several messages of a batch.
//
// # Claims
//
// Table storage has no clock that a condition could use. The claim of a receiver that crashed ends
// once another process has seen it unchanged for a whole lease, by its own clock: the
// message is refused once, and granted at the next delivery. See package replay/cas.
//
// # One region
//
// Azure Cosmos DB for Table is refused: with several regions to write in it keeps the
// later of two writes. A failover of a geo-redundant account loses what was not copied
// yet. Receivers notice, because the change number goes back; locally redundant and
// zone-redundant accounts do not lose it.
//
// # Trouble
//
// A request that is throttled or fails is repeated up to 3 times within a few seconds.
// After that the call fails with an error of package driver, and receiving stops until
// the store answers. An emptied or restored table is noticed by its ID or its change
// number.
package tablereplay
