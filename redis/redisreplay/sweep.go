package redisreplay

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/queue-runtime/queue/internal/replaystate"
)

const (
	// sweepPause and sweepTime, in milliseconds: a group is swept when a page is due, but
	// not more often than sweepPause, and every sweepTime in any case. Pages are due on
	// whole minutes, so processes wait for up to sweepSpread more, each for another time.
	sweepPause  = 1000
	sweepTime   = 60_000
	sweepSpread = 10_000
	// sweepSteps bounds the steps of a sweep, because the calls of the group wait.
	sweepSteps = 8
	// pageSteps and streamSteps are how many pages and streams a sweep looks at.
	pageSteps   = 64
	streamSteps = 64
	// crowdSteps is how many pages are folded early at once if too many recent messages
	// are kept.
	crowdSteps = 16
)

// sweepIfDue folds pages and drops old streams if it is time. It runs in the group's
// turn, behind the answer to a call.
func (g *group) sweepIfDue() {
	now := g.e.serverTime()
	if g.swept == 0 {
		g.swept = now // the processes that start now need not all sweep at once
	}
	crowded := g.crowded()
	since := now - g.swept
	due := g.due > 0 && g.due+g.spread <= now && since >= sweepPause
	if g.e.life.Err() != nil || !crowded && !due && since < sweepTime && since >= 0 {
		return
	}
	g.swept = now
	ctx, cancel := context.WithTimeout(g.e.life, g.e.o.Timeout)
	defer cancel()
	// A failure is no harm: the next sweep begins anew.
	_ = g.sweep(ctx, crowded)
}

func (g *group) crowded() bool { return g.e.storeCounts().Recents > g.e.limits.Recents }

// uncrowded has pages folded that are due, and none early.
const uncrowded = false

// sweep folds pages that are due, the oldest of them early if too many recent messages
// are kept, and drops old streams of a few senders.
func (g *group) sweep(ctx context.Context, crowded bool) error {
	for range sweepSteps {
		n, err := g.foldDue(ctx, crowded)
		if err != nil {
			return err
		}
		if crowded = g.crowded(); n < pageSteps && !(crowded && n > 0) {
			break
		}
	}
	return g.dropNext(ctx)
}

// foldDue folds some pages and returns how many it looked at.
func (g *group) foldDue(ctx context.Context, crowded bool) (int, error) {
	c, err := g.e.server.node(ctx)
	if err != nil {
		return 0, err
	}
	now := g.e.serverTime()
	until, limit := now, int64(pageSteps)
	if crowded {
		until, limit = replaystate.Untagged-1, crowdSteps
	}
	p := c.Pipeline()
	var found []*redis.StringSliceCmd
	for _, due := range [...]struct{ from, until, limit int64 }{
		{0, until, limit}, {replaystate.Untagged, replaystate.Untagged + now, pageSteps},
	} {
		found = append(found, p.ZRangeArgs(ctx, redis.ZRangeArgs{Key: g.name("due"), Start: due.from, Stop: due.until, ByScore: true, Count: due.limit}))
	}
	if _, err := p.Exec(ctx); err != nil {
		return 0, err
	}
	names := slices.Concat(found[0].Val(), found[1].Val())
	if len(names) == 0 {
		return 0, nil
	}
	type target struct {
		key   replaystate.Key
		index uint64
	}
	all := make([]target, len(names))
	for i, name := range names {
		if all[i].key, all[i].index, err = parsePage(name); err != nil {
			return 0, err
		}
	}
	_, err = g.transaction(ctx, writes, func(l *call) {
		for _, t := range all {
			l.open(t.key)
			l.settle(t.index, crowded)
		}
	})
	return len(names), err
}

// settle expires records of a page, and folds it if its time has come or if force is set.
func (l *call) settle(index uint64, force bool) {
	p, h := l.Page(index), l.Head()
	switch {
	case l.err != nil:
		return
	case p == nil:
		// Taken for absent, or gone meanwhile.
		l.request.unscore(dueKey, pageField(l.at.key, index))
		return
	case h == nil:
		return
	}
	empty := h.Settle(p, l.env.Now, l.state.Time(l.env.Now), l.g.e.limits.Keep(&l.state, l.tight(l.at.key.Sender)), force)
	l.count()
	if empty {
		l.at.pages[index] = &page{deleted: true}
	}
}

// dropNext drops old streams of the next senders of the group.
func (g *group) dropNext(ctx context.Context) error {
	c, err := g.e.server.node(ctx)
	if err != nil {
		return err
	}
	fields, cursor, err := c.HScan(ctx, g.name("count"), g.cursor, "s*", streamSteps).Result()
	if err != nil {
		return err
	}
	g.cursor = cursor
	var senders []string
	for i := 0; i < len(fields); i += 2 {
		senders = append(senders, fields[i][1:])
	}
	_, err = g.dropOld(ctx, senders)
	return err
}

// makeRoom drops old streams of senders that were refused, and of a few others. It
// reports whether it dropped any.
func (g *group) makeRoom(ctx context.Context, senders []string) (bool, error) {
	if err := g.sweep(ctx, uncrowded); err != nil {
		return false, err
	}
	return g.dropOld(ctx, senders)
}

// dropOld drops streams of senders that are past their time and have no pages, and
// raises the group's mark for each.
func (g *group) dropOld(ctx context.Context, senders []string) (dropped bool, err error) {
	if len(senders) == 0 {
		return false, nil
	}
	// How long streams are kept depends on what the group asked for, and what is old on
	// the newest message that it consumed.
	before := make(map[string]int64)
	_, err = g.transaction(ctx, reads, func(l *call) {
		for _, s := range senders {
			l.open(replaystate.Key{Sender: s})
			before[s] = l.state.Time(l.env.Now) - g.e.limits.Keep(&l.state, l.tight(s))
		}
	})
	if err != nil {
		return false, err
	}
	c, err := g.e.server.node(ctx)
	if err != nil {
		return false, err
	}
	p := c.Pipeline()
	var found []*redis.StringSliceCmd
	for s, t := range before {
		found = append(found, p.ZRangeArgs(ctx, redis.ZRangeArgs{
			Key: g.oldKey(s), Start: "-inf", Stop: "(" + strconv.FormatInt(t, 10), ByScore: true, Count: max(1, int64(streamSteps/len(senders))),
		}))
	}
	if _, err := p.Exec(ctx); err != nil {
		return false, err
	}
	var keys []replaystate.Key
	for _, cmd := range found {
		for _, name := range cmd.Val() {
			k, _, err := parseStream(name)
			if err != nil {
				return false, err
			}
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return false, nil
	}
	_, err = g.transaction(ctx, writes, func(l *call) {
		dropped = false
		for _, k := range keys {
			l.open(k)
			if l.drop(before[k.Sender]) {
				dropped = true
			}
		}
	})
	return dropped, err
}

// drop drops the stream at hand unless it has pages or has become younger.
func (l *call) drop(before int64) bool {
	s, h := l.at, l.Head()
	old := l.request.key(l.g.oldKey(s.key.Sender))
	switch {
	case h == nil:
		l.request.unscore(old, streamField(s.key))
		return false
	case h.Newest >= before:
		l.request.score(old, streamField(s.key), h.Newest)
		return false
	case l.load(place{kind: noPages, key: s.key}) != nil:
		// Look again in an hour of the group's time.
		l.request.score(old, streamField(s.key), before+time.Hour.Milliseconds())
		return false
	}
	l.state.Mark, l.state.Dirty = max(l.state.Mark, h.Newest, h.Mark), true
	l.countStream(s, replaystate.Counts{Streams: -1, Intervals: -int64(s.intervals)})
	s.dropped = true
	return true
}

// accounts returns streams from a cursor on, and the next cursor, 0 at the end.
func (g *group) accounts(ctx context.Context, from uint64) (entries []replaystate.Entry, cursor uint64, err error) {
	c, err := g.e.server.node(ctx)
	if err != nil {
		return nil, 0, err
	}
	heads := g.name("heads")
	fields, cursor, err := c.HScan(ctx, heads, from, "", streamsStep).Result()
	if err != nil || len(fields) == 0 {
		return nil, cursor, err
	}
	names := make([]string, 0, len(fields)/2)
	keys := make([]replaystate.Key, 0, len(fields)/2)
	for i := 0; i < len(fields); i += 2 {
		k, _, err := parseStream(fields[i])
		if err != nil {
			return nil, 0, err
		}
		names, keys = append(names, fields[i]), append(keys, k)
	}
	// The pages before the heads: what is folded in between is in both then.
	p := c.Pipeline()
	pages := make([]*redis.MapStringStringCmd, len(keys))
	for i, k := range keys {
		pages[i] = p.HGetAll(ctx, g.pagesKey(k))
	}
	bodies := p.HMGet(ctx, heads, names...)
	if _, err := p.Exec(ctx); err != nil {
		return nil, 0, err
	}
	env := &replaystate.Env{Now: g.e.serverTime()}
	for i, k := range keys {
		body, _ := bodies.Val()[i].(string)
		if len(body) < versionSize {
			continue // dropped meanwhile
		}
		h, err := replaystate.DecodeHead([]byte(body[versionSize:]))
		if err != nil {
			return nil, 0, fmt.Errorf("a head: %w", err)
		}
		list, err := decodePages(pages[i].Val())
		if err != nil {
			return nil, 0, err
		}
		entries = append(entries, replaystate.Entry{Key: k, Account: replaystate.Count(env, k, h, list)})
	}
	return entries, cursor, nil
}

func decodePages(all map[string]string) ([]*replaystate.Page, error) {
	var list []*replaystate.Page
	for name, value := range all {
		index, err := strconv.ParseUint(name, 10, 64)
		if err != nil || len(value) < versionSize {
			return nil, errField
		}
		p, err := replaystate.DecodePage([]byte(value[versionSize:]), index, span)
		if err != nil {
			return nil, fmt.Errorf("a page: %w", err)
		}
		list = append(list, p)
	}
	return list, nil
}
