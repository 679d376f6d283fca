package sqlitereplay

import (
	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// cacheLimit is how many groups, senders, streams and pages a cache has before it begins
// anew. One of a busy stream takes up to 5 KB, others some hundred bytes.
const cacheLimit = 4096

// cache is what transactions have loaded and saved. That of an engine belongs to the
// goroutine that writes. Its content holds in one epoch of the connection: then no other
// process has changed the file, and no transaction was undone.
type cache struct {
	epoch  uint64
	stamp  replaystate.Stamp
	store  replaystate.Counts
	groups map[string]*groupRow
	size   int // groups, senders, streams and pages
}

type groupRow struct {
	id      int64 // 0: not stored yet
	state   replaystate.Group
	counts  replaystate.Counts
	senders map[string]*senderRow
	streams map[replaystate.Key]*streamRow
}

type senderRow struct {
	id     int64 // 0: not stored yet
	counts replaystate.Counts
	added  replaystate.Counts // by the call that uses it
}

type streamRow struct {
	id        int64 // 0: not stored yet
	key       replaystate.Key
	sender    *senderRow
	held      bool
	head      *replaystate.Head // nil until it is needed
	intervals int               // that are stored
	pages     map[uint64]*pageRow

	used      bool       // by the call at hand
	usedPages []*pageRow // likewise
}

// pageRow is a page and what is stored of it.
type pageRow struct {
	id      int64 // 0: not stored
	index   uint64
	page    *replaystate.Page // nil: there is none
	records int
	recents int
	due     int64
	used    bool // by the call at hand
}

// renew empties a cache that no longer holds, or has become too large.
func (m *cache) renew(epoch uint64) {
	if m.epoch != epoch || m.size > cacheLimit {
		*m = cache{epoch: epoch}
	}
}

// load reads what every call needs, unless it is there.
func (m *cache) load(c *sqlitefile.Conn) (err error) {
	if m.groups != nil {
		return nil
	}
	if m.stamp, m.store, err = readStore(c); err == nil {
		m.groups = make(map[string]*groupRow, 1)
	}
	return err
}
