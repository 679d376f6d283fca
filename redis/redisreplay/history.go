package redisreplay

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// Group implements replaystate.Engine.
func (e *engine) Group(ctx context.Context, group string) (replaystate.Group, error) {
	var state replaystate.Group
	if _, err := e.of(group).run(&task{ctx: ctx, do: func(l *call) { state = l.state }}); err != nil {
		return replaystate.Group{}, err // the call may still be under way
	}
	return state, nil
}

// Change implements replaystate.Engine.
func (e *engine) Change(ctx context.Context, group string, do func(*replaystate.Group)) error {
	_, err := e.of(group).run(&task{ctx: ctx, write: true, do: func(l *call) { do(&l.state) }})
	return err
}

// History implements replaystate.Engine.
func (e *engine) History(ctx context.Context) (h replaystate.History, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.o.Timeout)
	defer cancel()
	if e.life.Err() != nil {
		return h, e.public(ErrClosed)
	}
	h, _, err = e.readHistory(ctx)
	return h, e.public(err)
}

// readHistory also returns the losses as they are stored.
func (e *engine) readHistory(ctx context.Context) (h replaystate.History, stored string, err error) {
	// It checks the server, and its answer has the stamp.
	if h.Stamp, err = newGroup(e, "").transaction(ctx, reads, func(*call) {}); err != nil {
		return h, "", err
	}
	c, err := e.server.node(ctx)
	if err != nil {
		return h, "", err
	}
	fields, err := c.HMGet(ctx, e.server.key, "id", "losses").Result()
	if err != nil {
		return h, "", err
	}
	if id, _ := fields[0].(string); id != string(h.Stamp.ID[:]) {
		return h, "", errMoved
	}
	stored, _ = fields[1].(string) // absent: none
	h.Losses, err = replaystate.DecodeLosses([]byte(stored))
	return h, stored, err
}

// errMoved: another process gave the memory another ID meanwhile, or wrote while a loss
// was to be accepted.
var errMoved = errors.New("the store changed during the call: repeat it")

// Accept implements replaystate.Engine. It waits for the replicas as other calls do.
func (e *engine) Accept(ctx context.Context, lost replaystate.Stamp) (l replaystate.Loss, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.o.Timeout)
	defer cancel()
	if e.life.Err() != nil {
		return l, e.public(ErrClosed)
	}
	for {
		l, err = e.accept(ctx, lost)
		if !errors.Is(err, errMoved) || ctx.Err() != nil {
			return l, e.public(err)
		}
	}
}

func (e *engine) accept(ctx context.Context, lost replaystate.Stamp) (l replaystate.Loss, err error) {
	h, stored, err := e.readHistory(ctx)
	if err != nil {
		return l, err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the process instead
	before := h.Stamp
	l, changed := h.Accept(lost, id, e.serverTime())
	if changed {
		c, err := e.server.node(ctx)
		if err != nil {
			return l, err
		}
		done, err := c.Eval(ctx, acceptScript, []string{e.server.key},
			before.ID[:], stored, h.Stamp.ID[:], h.Stamp.Birth, replaystate.AppendLosses(nil, h.Losses), before.Change).Int()
		switch {
		case err != nil:
			return l, err
		case done == 0:
			return l, errMoved
		}
	}
	// Behind it, so that the replicas have it. Also if nothing was changed: the answer
	// of the call that did may have been lost.
	_, err = newGroup(e, "").transaction(ctx, writes, func(*call) {})
	return l, err
}
