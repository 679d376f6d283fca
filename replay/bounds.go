package replay

import (
	"fmt"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// Quota bounds what is held. 0 means the default of [Bounds]; negative is refused.
type Quota struct {
	// Records are the messages that are claimed, released or parked.
	Records int
	// Streams are the streams that are held.
	Streams int
	// Intervals are the runs of consumed sequences: at least one for each
	// stream, at most 1,024.
	Intervals int
}

// Defaults of [Bounds].
const (
	DefaultRecords    = 1 << 20
	DefaultStreams    = 1 << 21
	DefaultIntervals  = 1 << 22
	DefaultRecent     = 1 << 18
	DefaultKeepStream = 15 * 24 * time.Hour
	DefaultParkedTTL  = 15 * 24 * time.Hour
)

// Bounds says how much a store holds, and for how long. The zero value is the
// default throughout; negative values are refused.
//
// At the bound of the store or of a group Begin answers ErrFull, at that of a
// sender ErrQuota. Before that, streams and intervals go that no receiver of the
// group can need any more: those whose newest message is older than the largest
// MaxMessageAge + 3 x MaxClockSkew that the group ever asked for. A mark stays, so
// what was in them is refused all the same.
type Bounds struct {
	// Store bounds all groups together. 0 means DefaultRecords, DefaultStreams
	// and DefaultIntervals.
	Store Quota
	// Group bounds each group. 0 means three quarters of Store.
	Group Quota
	// Sender bounds each sender of a group. 0 means half of Store.
	Sender Quota
	// Recent is how many recently consumed messages keep their tags; with more
	// the oldest fold early or lose their tags, and a copy of them is ErrReused in
	// place of ErrDuplicate. 0 means DefaultRecent.
	Recent int
	// KeepStream is how long a stream is kept after the newest message
	// consumed in it. 0 means 15 days. Groups that ask for more get more.
	KeepStream time.Duration
	// ParkedTTL is how long a parked message is remembered. 0 means 15 days.
	ParkedTTL time.Duration
}

// Resolved returns the bounds with the defaults filled in, or says which is
// refused.
func (b Bounds) Resolved() (Bounds, error) {
	first := func(n *int, values ...int) {
		for _, v := range values {
			if *n == 0 {
				*n = v
			}
		}
	}
	for _, q := range [...]Quota{b.Store, b.Group, b.Sender, {Records: b.Recent}} {
		if q.Records < 0 || q.Streams < 0 || q.Intervals < 0 {
			return b, fmt.Errorf("replay: bounds %+v: use numbers above zero, or 0 for the default", b)
		}
	}
	if b.KeepStream < 0 || b.ParkedTTL < 0 {
		return b, fmt.Errorf("replay: KeepStream %v and ParkedTTL %v: use times above zero, or 0 for 15 days", b.KeepStream, b.ParkedTTL)
	}
	first(&b.Store.Records, DefaultRecords)
	first(&b.Store.Streams, DefaultStreams)
	first(&b.Store.Intervals, DefaultIntervals)
	share := func(q *Quota, part, of int) {
		first(&q.Records, b.Store.Records/of*part, b.Store.Records)
		first(&q.Streams, b.Store.Streams/of*part, b.Store.Streams)
		first(&q.Intervals, b.Store.Intervals/of*part, b.Store.Intervals)
	}
	share(&b.Group, 3, 4)
	share(&b.Sender, 1, 2)
	first(&b.Recent, DefaultRecent)
	if b.KeepStream == 0 {
		b.KeepStream = DefaultKeepStream
	}
	if b.ParkedTTL == 0 {
		b.ParkedTTL = DefaultParkedTTL
	}
	return b, nil
}

// Limits translates resolved bounds for the stores of this project.
func (b Bounds) Limits() replaystate.Limits {
	bound := func(q Quota) replaystate.Bound {
		return replaystate.Bound{Records: int64(q.Records), Streams: int64(q.Streams), Intervals: int64(q.Intervals)}
	}
	return replaystate.Limits{
		Store: bound(b.Store), Group: bound(b.Group), Sender: bound(b.Sender), Recents: int64(b.Recent),
		KeepStream: b.KeepStream.Milliseconds(), ParkedTTL: b.ParkedTTL.Milliseconds(),
	}
}
