package cas

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// attempted is a first attempt at a work.
type attempted struct {
	w   *work
	key string
	v   *view // nil: the page is not known
}

// writes reports whether the attempt changes a page that is there, and no head.
func (a *attempted) writes() bool {
	return a.v != nil && a.v.page != nil && a.v.page.Dirty && !a.v.added && !a.v.writesHead()
}

// The pages of a group are written one by one for the time of apart after maxMissed writes of
// several in a row met a change: other processes work on the same pages, and the next one
// would meet a change, too. One attempt in this time finds out whether that is over.
const (
	apart     = 5 * time.Second
	maxMissed = 2
)

// joins reports whether the pages of a group are written together.
func (e *engine) joins(group string) bool {
	if _, ok := e.b.(Batcher); !ok {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.cache(group)
	return g.missed < maxMissed || time.Since(g.missedAt) >= apart
}

// together makes a first attempt at all works whose pages are known, in one request
// if the backend can. It returns the works that are left to do.
func (e *engine) together(ctx context.Context, all []*work) (left []*work, err error) {
	b, ok := e.b.(Batcher)
	if !ok || len(all) < 2 {
		return all, nil
	}
	tries := make([]attempted, len(all))
	items := make([]Item, len(all))
	err = e.each(len(all), func(i int) (err error) {
		w := all[i]
		a := &tries[i]
		*a = attempted{w: w, key: e.pageKey(w.group, w.key, w.index)}
		e.mu.Lock()
		item, known := e.pages[a.key]
		e.mu.Unlock()
		if known && item.Version != "" && !isReserved(item) {
			items[i] = item
			a.v, err = e.apply(ctx, w, item)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var changes []Change
	var changing []*attempted
	for i := range tries {
		a := &tries[i]
		if a.writes() {
			changes = append(changes, Change{a.key, items[i].Version, replaystate.AppendPage(nil, a.v.page)})
			changing = append(changing, a)
		} else {
			left = append(left, a.w)
		}
	}
	if len(changes) < 2 {
		return all, nil
	}
	results, err := b.SwapAll(ctx, changes)
	missed := false
	for i, a := range changing {
		switch {
		case err != nil:
			e.forget(a.key) // whether it was written is not known
			continue
		case results[i].Swapped:
			e.count(a.w.group, a.w.key.Sender, size(a.v.page).Sub(a.v.before))
		default:
			a.w.doubted = true
			left = append(left, a.w)
			missed = true
		}
		e.remember(a.key, results[i].Current, a.w.doubted)
	}
	if err == nil {
		e.joined(all[0].group, missed)
	}
	return left, err
}

// joined notes whether a write of several pages met a change.
func (e *engine) joined(group string, missed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.cache(group)
	if !missed {
		g.missed = 0
		return
	}
	g.missed++
	g.missedAt = time.Now()
}
