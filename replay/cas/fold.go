package cas

import (
	"context"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// fold folds one page as the sweep has read it. In this order: the head is read, the page is
// retired, which gives it another version, the head is written, and the page is removed, or
// written without what the head has taken over.
//
// So the page was not in use, and there, at a moment between the reading and the writing of the
// head. A receiver that uses it after that moment has to write the head first, to hold the page
// apart, and of two that write the same version of a head one fails. A page that has changed since the sweep
// has read it is left to the next one. After each step the next sweep can go on as if nothing
// had happened.
func (e *engine) fold(ctx context.Context, group string, k replaystate.Key, g *replaystate.Group, s *storedPage) (done bool, err error) {
	key := e.pageKey(group, k, s.index)
	if isReserved(s.item) { // its maker is dead, or makes it anew
		return e.replace(ctx, key, s, nil)
	}
	tight := e.tight(group, k.Sender)
	for try := 0; ; try++ {
		item, err := e.b.Get(ctx, e.headKey(group, k))
		if err != nil || item.Version == "" {
			return false, err
		}
		h, err := replaystate.DecodeHead(item.Value)
		if err != nil {
			return false, err
		}
		if try == 0 && h.Strip(s.page, e.now()) { // it is not due: there is no room
			return e.replace(ctx, key, s, replaystate.AppendPage(nil, s.page))
		}
		s.page.Retire()
		if done, err := e.replace(ctx, key, s, replaystate.AppendPage(nil, s.page)); err != nil || !done {
			return false, err
		}
		h.Fold(s.page)
		h, err = e.tidy(ctx, group, k, h, []storedPage{*s}, g.Time(e.now()), e.limits.Keep(g, tight))
		if err != nil {
			return false, err
		}
		_, done, err := e.b.Swap(ctx, item.Key, item.Version, replaystate.AppendHead(nil, h))
		if err != nil {
			return false, err
		}
		if done {
			break
		}
		if err := e.pause(ctx, try); err != nil {
			return false, err
		}
	}
	var rest []byte
	if !s.page.Folded() {
		rest = replaystate.AppendPage(nil, s.page)
	}
	_, err = e.replace(ctx, key, s, rest)
	return err == nil, err
}

// replace replaces a page if it is still as it was read, or removes it if value is nil.
func (e *engine) replace(ctx context.Context, key string, s *storedPage, value []byte) (done bool, err error) {
	next, done, err := e.b.Swap(ctx, key, s.item.Version, value)
	if err != nil {
		e.forget(key) // whether it was written is not known
		return false, err
	}
	e.remember(key, next, true)
	s.item = next
	return done, nil
}

// tidy returns h after Head.Tidy. Before intervals are forgotten of sequences that are apart, it
// makes sure that their pages are there: what such a page does not know would count as missing.
func (e *engine) tidy(ctx context.Context, group string, k replaystate.Key, h *replaystate.Head, there []storedPage, time, keep int64) (*replaystate.Head, error) {
	for {
		next, err := replaystate.DecodeHead(replaystate.AppendHead(nil, h)) // a copy
		if err != nil {
			return nil, err
		}
		next.Tidy(time, keep)
		forgotten := consumed(h).Without(consumed(next)).Common(h.Apart)
		released, err := e.release(ctx, group, k, h, forgotten, there)
		if err != nil || !released {
			return next, err
		}
	}
}

// consumed returns the sequences in the intervals of a head.
func consumed(h *replaystate.Head) replaystate.Ranges {
	out := make(replaystate.Ranges, len(h.Intervals))
	for i, v := range h.Intervals {
		out[i] = replaystate.Range{First: v.First, Last: v.Last}
	}
	return out
}

// release has h not keep apart any more the pages of so many sequences that are not there: their
// makers died after they had written the head, or were refused in the end. there are pages that
// need not be looked for. It reports whether h has changed. If h is the head as it was read before,
// it can be written: a page that is made now needs a later version of it.
func (e *engine) release(ctx context.Context, group string, k replaystate.Key, h *replaystate.Head, apart replaystate.Ranges, there []storedPage) (changed bool, err error) {
	held := make(map[uint64]bool, len(there))
	for i := range there {
		held[there[i].index] = there[i].item.Version != ""
	}
	for _, r := range apart {
		last := replaystate.IndexOf(r.Last, e.o.PageSpan)
		for index := replaystate.IndexOf(r.First, e.o.PageSpan); index <= last; index++ {
			if held[index] {
				continue
			}
			held[index] = true // it was looked for
			vacant, err := e.vacate(ctx, e.pageKey(group, k, index))
			if err != nil {
				return changed, err
			}
			if vacant {
				h.Fold(replaystate.NewPage(&replaystate.Group{}, nil, index, e.o.PageSpan))
				changed = true
			}
		}
	}
	return changed, nil
}

// vacate reports whether a page is not there. It takes away the place of one that is being made:
// its maker is dead, or makes it anew.
func (e *engine) vacate(ctx context.Context, key string) (vacant bool, err error) {
	item, err := e.b.Get(ctx, key)
	if err == nil && isReserved(item) {
		item, _, err = e.b.Swap(ctx, key, item.Version, nil)
	}
	return err == nil && item.Version == "", err
}
