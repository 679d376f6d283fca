package cas

import (
	"context"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// attempted is a first attempt at a work.
type attempted struct {
	w   *work
	key string
	v   *view // nil: the page is not known
}

// writes reports whether the attempt changes a page that is there.
func (a *attempted) writes() bool {
	return a.v != nil && a.v.page != nil && a.v.page.Dirty && !a.v.added
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
	for i, a := range changing {
		switch {
		case err != nil:
			e.forget(a.key) // whether it was written is not known
			continue
		case results[i].Swapped:
			e.count(a.w.group, a.w.key.Sender, size(a.v.page).Sub(a.v.before))
		default:
			left = append(left, a.w)
		}
		e.remember(a.key, results[i].Current)
	}
	return left, err
}
