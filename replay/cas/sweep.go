package cas

import (
	"context"
	"iter"
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
	recents := int64(0)
	for _, all := range pages {
		for i := range all {
			recents += int64(all[i].page.Recents())
			g.Newest = max(g.Newest, all[i].page.Newest)
		}
	}
	for k, all := range pages {
		for i := range all {
			n := int64(all[i].page.Recents())
			now := e.now()
			if recents <= e.limits.Recents && all[i].page.Due() > now {
				continue
			}
			all[i].page.Expire(now)
			if recents <= e.limits.Recents && !all[i].page.Foldable(now) {
				continue
			}
			if err := e.fold(ctx, group, k, &g, &all[i]); err != nil {
				return err
			}
			recents += int64(all[i].page.Recents()) - n
		}
	}
	return e.drop(ctx, group, &g, pages)
}

// fold folds one page: first the head is written, then the version of the page
// that was folded is removed, or written without what the head has taken over.
func (e *engine) fold(ctx context.Context, group string, k replaystate.Key, g *replaystate.Group, s *storedPage) error {
	key := e.pageKey(group, k, s.index)
	if isReserved(s.item) {
		// Its maker is dead, or makes it anew.
		next, _, err := e.b.Swap(ctx, key, s.item.Version, nil)
		s.item = next
		return err
	}
	found, stripped, tight := false, false, e.tight(group, k.Sender)
	err := e.onHead(ctx, e.headKey(group, k), func(h *replaystate.Head) {
		found = true
		if stripped = stripped || h.Strip(s.page, e.now()); stripped { // it is not due: there is no room
			return
		}
		h.Fold(s.page)
		h.Tidy(g.Time(e.now()), e.limits.Keep(g, tight))
	})
	if err != nil || !found {
		return err
	}
	var body []byte
	if stripped || !s.page.Folded() {
		body = replaystate.AppendPage(nil, s.page)
	}
	next, done, err := e.b.Swap(ctx, key, s.item.Version, body)
	if err != nil {
		e.forget(key)
		return err
	}
	e.remember(key, next, true)
	if done {
		s.item = next
		return nil
	}
	if next.Version == "" || isReserved(next) {
		return nil
	}
	// It is in use again, and took itself to be apart as before the fold.
	return e.onHead(ctx, e.headKey(group, k), func(h *replaystate.Head) { h.Hold(s.page) })
}

// drop counts the heads of a group and drops those that are past their time and
// have no pages.
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
		if !held[s.key] && s.head.Newest+e.limits.Keep(g, tight) < g.Time(e.now()) {
			if err := e.raise(ctx, group, replaystate.Group{Mark: max(s.head.Newest, s.head.Mark)}); err != nil {
				return err
			}
			_, done, err := e.b.Swap(ctx, s.item.Key, s.item.Version, nil)
			if err != nil {
				return err
			}
			if done {
				continue
			}
		}
		add(s.key.Sender, replaystate.Counts{Streams: 1, Intervals: int64(len(s.head.Intervals))})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.cache(group)
	c.counts, c.senders, c.newest = total, senders, max(c.newest, newest)
	return nil
}

// tight reports whether old streams of a sender should make room.
func (e *engine) tight(group, sender string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.cache(group)
	s := c.senders[sender]
	return s != nil && e.limits.Sender.Tight(*s) || e.limits.Group.Tight(c.counts)
}
