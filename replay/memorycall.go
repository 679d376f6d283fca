package replay

import (
	"slices"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// memoryCall is one call on a memory, under its mutex. It is the
// replaystate.Stream of the item at hand.
type memoryCall struct {
	m     *memory
	group *memoryGroup
	env   replaystate.Env

	key    replaystate.Key
	sender *memorySender     // nil if the sender has no stream
	stream *memoryStream     // nil if it is not held
	head   *replaystate.Head // decoded, nil until it is needed
	page   *replaystate.Page // the last one that was asked for
}

var _ replaystate.Stream = (*memoryCall)(nil)

// on runs do with a stream, and counts what it changed of the page of a sequence.
func (c *memoryCall) on(k replaystate.Key, sequence uint64, do func()) {
	if s := c.group.senders[k.Sender]; s != nil && c.m.limits.Sender.Tight(s.counts) {
		c.m.dropOld(c.group, s, c.env.Now)
		c.stream = nil // perhaps it was dropped
	}
	c.open(k)
	index := replaystate.IndexOf(sequence, memorySpan)
	before := c.size(index)
	do()
	if c.stream == nil {
		return
	}
	c.count(c.size(index).Sub(before))
	c.save()
}

// open finds a stream, unless it is the stream of the item before.
func (c *memoryCall) open(k replaystate.Key) {
	if c.stream != nil && k == c.key {
		return
	}
	c.key, c.head, c.page = k, nil, nil
	c.sender, c.stream = c.group.senders[k.Sender], nil
	if c.sender != nil {
		c.stream = c.sender.streams[k.Stream]
	}
}

// size counts the records and recent entries of a page.
func (c *memoryCall) size(index uint64) (n replaystate.Counts) {
	if p := c.Page(index); p != nil {
		n.Records, n.Recents = int64(p.Records()), int64(p.Recents())
	}
	return n
}

func (c *memoryCall) count(d replaystate.Counts) {
	c.m.counts.Add(d)
	c.group.counts.Add(d)
	c.sender.counts.Add(d)
}

// room says whether one more record fits, and one more stream if asked.
func (c *memoryCall) room(_ replaystate.Key, stream bool) replaystate.Outcome {
	var sender replaystate.Counts
	if c.sender != nil {
		sender = c.sender.counts
	}
	return c.m.limits.Room(c.m.counts, c.group.counts, sender, stream)
}

// Head implements replaystate.Stream.
func (c *memoryCall) Head() *replaystate.Head {
	if c.head == nil && c.stream != nil {
		c.head = c.stream.decode()
	}
	return c.head
}

// Page implements replaystate.Stream. It opens a frozen page.
func (c *memoryCall) Page(index uint64) *replaystate.Page {
	if c.stream == nil {
		return nil
	}
	if c.page != nil && c.page.Index == index {
		return c.page
	}
	i, ok := c.stream.find(index)
	if !ok {
		return nil
	}
	p := &c.stream.pages[i]
	if p.open == nil {
		p.open = p.read()
		c.m.bytes -= int64(len(p.frozen))
		p.frozen = nil
		c.m.frozen.take(p.watch.place)
		c.m.open.push(c.env.Now+openFor, p.watch)
	}
	c.page = p.open
	return p.open
}

// Add implements replaystate.Stream.
func (c *memoryCall) Add(h *replaystate.Head, p *replaystate.Page) {
	if c.sender == nil {
		c.sender = &memorySender{
			name: c.key.Sender, group: c.group, streams: make(map[[16]byte]*memoryStream), place: len(c.group.rotation),
		}
		c.group.senders[c.key.Sender] = c.sender
		c.group.rotation = append(c.group.rotation, c.sender)
	}
	if c.stream == nil {
		c.stream = &memoryStream{sender: c.sender, id: c.key.Stream}
		c.sender.streams[c.key.Stream] = c.stream
		c.sender.old.push(h.Newest+c.m.limits.Keep(&c.group.state, false), c.stream)
		c.count(replaystate.Counts{Streams: 1})
	}
	c.head = h
	i, _ := c.stream.find(p.Index)
	w := &pageWatch{stream: c.stream, index: p.Index}
	c.stream.pages = slices.Insert(c.stream.pages, i, memoryPage{index: p.Index, open: p, watch: w})
	c.m.open.push(c.env.Now+openFor, w)
}

// save encodes the head if it has changed.
func (c *memoryCall) save() {
	if c.head != nil && c.head.Dirty {
		c.m.store(c.stream, c.head)
	}
}

// openFor is how long a page stays open at least, in milliseconds: as long as the
// tags in it are kept.
const openFor = 5 * 60 * 1000

func (s *memoryStream) find(index uint64) (int, bool) {
	return slices.BinarySearchFunc(s.pages, index, func(p memoryPage, n uint64) int {
		switch {
		case p.index < n:
			return -1
		case p.index > n:
			return 1
		}
		return 0
	})
}

// decode returns the head. What this process encoded it can decode.
func (s *memoryStream) decode() *replaystate.Head {
	if s.head == nil {
		return nil
	}
	h, err := replaystate.DecodeHead(s.head)
	if err != nil {
		panic("replay: memory: " + err.Error())
	}
	return h
}

// read returns the page without opening it.
func (p *memoryPage) read() *replaystate.Page {
	if p.open != nil {
		return p.open
	}
	page, err := replaystate.DecodePage(p.frozen, p.index, memorySpan)
	if err != nil {
		panic("replay: memory: " + err.Error())
	}
	return page
}
