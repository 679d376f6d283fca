package cas

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// current reads the item of the store, makes it if there is none, and raises its
// change number if bump is due.
func (e *engine) current(ctx context.Context) error {
	for try := 0; ; try++ {
		e.mu.Lock()
		item, before, renew := e.meta, e.known(), e.renew
		e.mu.Unlock()
		if item.Version == "" {
			var err error
			if item, err = e.b.Get(ctx, e.metaKey()); err != nil {
				return err
			}
		}
		m := meta{History: replaystate.History{Stamp: replaystate.Stamp{Birth: e.now(), Change: 1}}}
		var done bool
		var err error
		if item.Version == "" {
			_, _ = rand.Read(m.Stamp.ID[:]) // never fails: it ends the process instead
			m.note(e.handle)
			item, done, err = e.b.Create(ctx, e.metaKey(), e.encodeMeta(&m))
		} else {
			if m, err = e.decodeMeta(item.Value); err != nil {
				return err
			}
			if renew == m.Stamp.ID {
				_, _ = rand.Read(m.Stamp.ID[:]) // as above
				m.Stamp.Birth = max(m.Stamp.Birth, e.now())
			}
			m.Stamp.Change++
			m.note(e.handle)
			item, done, err = e.b.Swap(ctx, e.metaKey(), item.Version, e.encodeMeta(&m))
		}
		if err != nil {
			return err
		}
		if err := e.learn(before, item, done); err != nil || done {
			return err
		}
		if err := e.pause(ctx, try); err != nil {
			return err
		}
	}
}

// knowledge is what was known of the memory before a request.
type knowledge struct {
	stamp  replaystate.Stamp
	raised uint64 // the change number, by this Store; 0 if it has not
}

// known is called under the mutex.
func (e *engine) known() knowledge { return knowledge{e.history.Stamp, e.raised} }

// learn takes over the item of the store as a request found it. before is what was known
// before the request.
func (e *engine) learn(before knowledge, item Item, bumped bool) error {
	var m meta
	if item.Version != "" {
		var err error
		if m, err = e.decodeMeta(item.Value); err != nil {
			return err
		}
	}
	s, was := m.Stamp, before.stamp
	e.mu.Lock()
	defer e.mu.Unlock()
	// What this Store has raised the change number to is gone, also if others have raised it
	// since: then the memory gets another ID, so that the receivers of all processes notice.
	gone := s.ID == was.ID && !m.has(e.handle, before.raised)
	lost := was.ID != [16]byte{} && (s.ID != was.ID || s.Change < was.Change || gone)
	if !lost && s.ID == e.history.Stamp.ID && s.Change < e.history.Stamp.Change {
		return nil // overtaken by another request
	}
	if lost {
		// Another memory, or an older one: nothing that was read is true.
		clear(e.pages)
		clear(e.groups)
		clear(e.seen)
		e.raised, e.renew = 0, [16]byte{}
	}
	if gone {
		e.renew = s.ID
	}
	e.meta, e.history = item, m.History
	if bumped {
		e.bumped, e.raised = time.Now(), s.Change
	}
	return nil
}

// check reads the item of the store again, and makes it if it is gone.
func (e *engine) check(ctx context.Context) error {
	e.mu.Lock()
	before, strange := e.known(), e.strange
	e.mu.Unlock()
	item, err := e.b.Get(ctx, e.metaKey())
	if err != nil {
		return err
	}
	if err := e.learn(before, item, false); err != nil {
		return err
	}
	e.mu.Lock()
	e.looked = max(e.looked, strange)
	renew := e.renew
	e.mu.Unlock()
	if item.Version != "" && renew == [16]byte{} {
		return nil
	}
	return e.current(ctx)
}

// doubtful reports whether a page was found, since the item of the store was last read, that
// may be of another memory.
func (e *engine) doubtful() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.strange > e.looked
}

// prepare makes sure that the store has an ID, and that its change number grows.
func (e *engine) prepare(ctx context.Context) error {
	e.mu.Lock()
	due := e.meta.Version == "" || e.renew != [16]byte{} || time.Since(e.bumped) >= e.o.ChangeInterval
	e.mu.Unlock()
	if !due {
		return nil
	}
	return e.current(ctx)
}

func (e *engine) stamped() replaystate.Stamp {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.history.Stamp
}

// History implements replaystate.Engine.
func (e *engine) History(ctx context.Context) (replaystate.History, error) {
	if err := e.check(ctx); err != nil {
		return replaystate.History{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return replaystate.History{Stamp: e.history.Stamp, Losses: slices.Clone(e.history.Losses)}, nil
}

// Accept implements replaystate.Engine.
func (e *engine) Accept(ctx context.Context, lost replaystate.Stamp) (replaystate.Loss, error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the process instead
	for try := 0; ; try++ {
		if err := e.check(ctx); err != nil {
			return replaystate.Loss{}, err
		}
		e.mu.Lock()
		item, before := e.meta, e.known()
		e.mu.Unlock()
		m, err := e.decodeMeta(item.Value)
		if err != nil {
			return replaystate.Loss{}, err
		}
		l, changed := m.Accept(lost, id, e.now())
		if !changed {
			return l, nil
		}
		m.note(e.handle)
		item, done, err := e.b.Swap(ctx, e.metaKey(), item.Version, e.encodeMeta(&m))
		if err == nil {
			err = e.learn(before, item, done)
		}
		if err != nil || done {
			return l, err
		}
		if err := e.pause(ctx, try); err != nil {
			return l, err
		}
	}
}

// group returns a copy of the state of a group, which is read if it is not known
// or if fresh is set.
func (e *engine) group(ctx context.Context, name string, fresh bool) (replaystate.Group, error) {
	e.mu.Lock()
	g := e.groups[name]
	known := g != nil && g.read
	e.mu.Unlock()
	if !known || fresh {
		item, err := e.b.Get(ctx, e.groupKey(name))
		if err != nil {
			return replaystate.Group{}, err
		}
		if err := e.learnGroup(name, item); err != nil {
			return replaystate.Group{}, err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cache(name).state, nil
}

// cache returns what is known of a group; the mutex is held.
func (e *engine) cache(name string) *groupCache {
	g := e.groups[name]
	if g == nil {
		g = &groupCache{senders: make(map[string]*replaystate.Counts), swept: time.Now()}
		e.groups[name] = g
	}
	return g
}

func (e *engine) learnGroup(name string, item Item) error {
	state := &replaystate.Group{}
	if item.Version != "" {
		var err error
		if state, err = replaystate.DecodeGroup(item.Value); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.cache(name)
	g.read, g.item, g.state = true, item, *state
	return nil
}

// raise writes what of want is larger than in the stored group.
func (e *engine) raise(ctx context.Context, name string, want replaystate.Group) error {
	for try := 0; ; try++ {
		if _, err := e.group(ctx, name, try > 0); err != nil {
			return err
		}
		e.mu.Lock()
		g := e.cache(name)
		item, state := g.item, g.state
		e.mu.Unlock()
		next := replaystate.Group{
			Mark: max(state.Mark, want.Mark), Reach: max(state.Reach, want.Reach), Skew: max(state.Skew, want.Skew), Keys: state.Keys,
		}
		if next.Mark == state.Mark && next.Reach == state.Reach && next.Skew == state.Skew && item.Version != "" {
			return nil
		}
		if done, err := e.writeGroup(ctx, name, item, &next); err != nil || done {
			return err
		}
		if err := e.pause(ctx, try); err != nil {
			return err
		}
	}
}

// Group implements replaystate.Engine.
func (e *engine) Group(ctx context.Context, group string) (replaystate.Group, error) {
	return e.group(ctx, group, true)
}

// Change implements replaystate.Engine.
func (e *engine) Change(ctx context.Context, group string, do func(*replaystate.Group)) error {
	if err := e.prepare(ctx); err != nil {
		return err
	}
	for try := 0; ; try++ {
		if _, err := e.group(ctx, group, true); err != nil {
			return err
		}
		e.mu.Lock()
		g := e.cache(group)
		item, next := g.item, g.state
		e.mu.Unlock()
		if do(&next); !next.Dirty {
			return nil
		}
		if done, err := e.writeGroup(ctx, group, item, &next); err != nil || done {
			return err
		}
		if err := e.pause(ctx, try); err != nil {
			return err
		}
	}
}

// writeGroup replaces the item of a group, or makes it.
func (e *engine) writeGroup(ctx context.Context, name string, item Item, next *replaystate.Group) (done bool, err error) {
	body := replaystate.AppendGroup(nil, next)
	if item.Version == "" {
		item, done, err = e.b.Create(ctx, e.groupKey(name), body)
	} else {
		item, done, err = e.b.Swap(ctx, e.groupKey(name), item.Version, body)
	}
	if err != nil {
		return false, err
	}
	return done, e.learnGroup(name, item)
}
