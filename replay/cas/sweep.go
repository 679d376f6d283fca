package cas

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// storedPage is a page with its item.
type storedPage struct {
	item  Item
	index uint64
	page  *replaystate.Page
}

// storedHead is a head with its item.
type storedHead struct {
	item Item
	key  replaystate.Key
	head *replaystate.Head
}

// readPages reads the pages of a group. A place that is reserved is an empty page.
func (e *engine) readPages(ctx context.Context, group string) (map[replaystate.Key][]storedPage, error) {
	all, prefix := make(map[replaystate.Key][]storedPage), e.pagePrefix(group)
	for item, err := range e.b.Scan(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		k, index, err := parse(strings.TrimPrefix(item.Key, prefix))
		if err != nil {
			return nil, err
		}
		if isReserved(item) {
			all[k] = append(all[k], storedPage{item: item, index: index, page: replaystate.NewPage(&replaystate.Group{}, nil, index, e.o.PageSpan)})
			continue
		}
		p, err := replaystate.DecodePage(item.Value, index, e.o.PageSpan)
		if err != nil {
			return nil, err
		}
		all[k] = append(all[k], storedPage{item, index, p})
	}
	return all, ctx.Err()
}

// readHeads iterates over the heads of a group.
func (e *engine) readHeads(ctx context.Context, group string) iter.Seq2[storedHead, error] {
	prefix := e.headPrefix(group)
	return func(yield func(storedHead, error) bool) {
		for item, err := range e.b.Scan(ctx, prefix) {
			s := storedHead{item: item}
			if err == nil {
				s.key, _, err = parse(strings.TrimPrefix(item.Key, prefix))
			}
			if err == nil {
				s.head, err = replaystate.DecodeHead(item.Value)
			}
			if !yield(s, err) || err != nil {
				return
			}
		}
	}
}

// sweepIfDue starts a sweep of a group if none was for SweepInterval.
func (e *engine) sweepIfDue(group string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.cache(group)
	if g.busy || e.sweeping.Err() != nil || time.Since(g.swept) < e.o.SweepInterval {
		return
	}
	g.busy = true
	e.sweeps.Go(func() {
		// A failure is no harm: the next sweep begins anew.
		_ = e.sweep(e.sweeping, group)
		e.mu.Lock()
		defer e.mu.Unlock()
		g.busy, g.swept = false, time.Now()
	})
}

// refusalSweep is how old a sweep has to be for a refusal to cause another.
const refusalSweep = 10 * time.Second

// sweepNow sweeps a group that is full, unless that was done just now. It reports
// whether it did.
func (e *engine) sweepNow(ctx context.Context, group string) bool {
	e.mu.Lock()
	g := e.cache(group)
	idle := !g.busy && time.Since(g.swept) >= refusalSweep
	g.busy = g.busy || idle
	e.mu.Unlock()
	if !idle {
		return false
	}
	err := e.sweep(ctx, group)
	e.mu.Lock()
	defer e.mu.Unlock()
	g.busy, g.swept = false, time.Now()
	return err == nil
}

// sweep folds pages, drops old streams and counts what a group holds.
func (e *engine) sweep(ctx context.Context, group string) error {
	pages, err := e.readPages(ctx, group)
	if err != nil {
		return err
	}
	g, err := e.group(ctx, group, true)
	if err != nil {
		return err
	}
	e.mu.Lock()
	g.Newest = e.cache(group).newest
	e.mu.Unlock()
	c := &census{pages: pages, group: &g}
	for _, all := range pages {
		for i := range all {
			c.recents += int64(all[i].page.Recents())
			g.Newest = max(g.Newest, all[i].page.Newest)
		}
	}
	if err := e.foldDue(ctx, group, c); err != nil {
		return err
	}
	if err := e.foldOldest(ctx, group, c); err != nil {
		return err
	}
	return e.drop(ctx, group, &g, pages)
}

// census is what a sweep has found.
type census struct {
	pages   map[replaystate.Key][]storedPage
	group   *replaystate.Group
	recents int64
}

// foldDue folds the pages whose time has come.
func (e *engine) foldDue(ctx context.Context, group string, c *census) error {
	for k, all := range c.pages {
		for i := range all {
			now := e.now()
			if all[i].page.Due() > now {
				continue
			}
			if all[i].page.Expire(now); !all[i].page.Foldable(now) {
				continue
			}
			if err := e.foldOf(ctx, group, c, k, &all[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// foldOldest folds pages before their time while there are too many recent messages, those
// first that would be due first.
func (e *engine) foldOldest(ctx context.Context, group string, c *census) error {
	if c.recents <= e.limits.Recents {
		return nil
	}
	type candidate struct {
		key replaystate.Key
		at  *storedPage
	}
	var all []candidate
	for k, of := range c.pages {
		for i := range of {
			if of[i].page.Recents() > 0 {
				all = append(all, candidate{k, &of[i]})
			}
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(a.at.page.Due(), b.at.page.Due()) })
	for _, o := range all {
		if c.recents <= e.limits.Recents {
			return nil
		}
		o.at.page.Expire(e.now())
		if err := e.foldOf(ctx, group, c, o.key, o.at); err != nil {
			return err
		}
	}
	return nil
}

// foldOf folds a page of a census.
func (e *engine) foldOf(ctx context.Context, group string, c *census, k replaystate.Key, s *storedPage) error {
	n := int64(s.page.Recents())
	done, err := e.fold(ctx, group, k, c.group, s)
	if done {
		c.recents += int64(s.page.Recents()) - n
	}
	return err
}

// drop counts the heads of a group, drops those that are past their time and have no
// pages, and puts right those that keep apart a page that was never written.
func (e *engine) drop(ctx context.Context, group string, g *replaystate.Group, pages map[replaystate.Key][]storedPage) error {
	var total replaystate.Counts
	senders := make(map[string]*replaystate.Counts)
	newest := g.Newest
	add := func(sender string, n replaystate.Counts) {
		if senders[sender] == nil {
			senders[sender] = &replaystate.Counts{}
		}
		senders[sender].Add(n)
		total.Add(n)
	}
	held := make(map[replaystate.Key]bool, len(pages))
	for k, all := range pages {
		for i := range all {
			if all[i].item.Version == "" {
				continue
			}
			held[k] = true
			add(k.Sender, size(all[i].page))
		}
	}
	for s, err := range e.readHeads(ctx, group) {
		if err != nil {
			return err
		}
		newest = max(newest, s.head.NewestConsumed())
		tight := e.tight(group, s.key.Sender)
		gone := false
		if !held[s.key] && s.head.Newest+e.limits.Keep(g, tight) < g.Time(e.now()) {
			gone, err = e.dropStream(ctx, group, &s)
		} else if len(s.head.Apart) > 0 {
			err = e.releaseHead(ctx, group, &s, pages[s.key])
		}
		if err != nil {
			return err
		}
		if gone {
			continue
		}
		add(s.key.Sender, replaystate.Counts{Streams: 1, Intervals: int64(len(s.head.Intervals))})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.cache(group)
	c.counts, c.senders, c.newest = total, senders, max(c.newest, newest)
	return nil
}

// dropStream drops a stream that has no pages, unless it was used since its head was read: a
// receiver that makes a page writes the head, after the place of the page is reserved.
func (e *engine) dropStream(ctx context.Context, group string, s *storedHead) (done bool, err error) {
	for _, err := range e.b.Scan(ctx, e.pagePrefix(group)+streamPart(s.key)) {
		return false, err // it has one
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := e.raise(ctx, group, replaystate.Group{Mark: max(s.head.Newest, s.head.Mark)}); err != nil {
		return false, err
	}
	_, done, err = e.b.Swap(ctx, s.item.Key, s.item.Version, nil)
	return done, err
}

// releaseHead writes a head without what it keeps apart of pages that are not there. If it was
// written meanwhile, the next sweep does it.
func (e *engine) releaseHead(ctx context.Context, group string, s *storedHead, there []storedPage) error {
	changed, err := e.release(ctx, group, s.key, s.head, slices.Clone(s.head.Apart), there)
	if err != nil || !changed {
		return err
	}
	_, _, err = e.b.Swap(ctx, s.item.Key, s.item.Version, replaystate.AppendHead(nil, s.head))
	return err
}

// tight reports whether old streams of a sender should make room.
func (e *engine) tight(group, sender string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.cache(group)
	s := c.senders[sender]
	return s != nil && e.limits.Sender.Tight(*s) || e.limits.Group.Tight(c.counts)
}
