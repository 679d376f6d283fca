package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
	"github.com/queue-runtime/queue/tests/bench/internal/measure"
)

var replaySizes = []int{1, 100, 1_000, 10_000, 100_000}

// measureReplay claims and consumes a message of each of many senders in turn.
func measureReplay(ctx context.Context, dir string, sizes []int, rounds int) (g growth, err error) {
	g = growth{what: "senders, sqlitereplay", sizes: sizes, disk: true}
	var ways []measure.Way
	var stores []*sqlitereplay.Store
	defer func() {
		for _, s := range stores {
			err = errors.Join(err, s.Close(ctx))
		}
	}()
	for _, size := range sizes {
		s, err := sqlitereplay.Open(ctx, filepath.Join(dir, fmt.Sprintf("growth-replay-%d.db", size)), nil)
		if err != nil {
			return g, err
		}
		stores = append(stores, s)
		t := &replayTraffic{store: s, opened: time.Now(), sequences: make([]uint64, size)}
		for left := size; left > 0; left -= replay.MaxBatch {
			if err := t.handle(ctx, min(left, replay.MaxBatch)); err != nil {
				return g, err
			}
		}
		ways = append(ways, measure.Do(fmt.Sprint(size), growthDiskTurn, func(ctx context.Context) error { return t.handle(ctx, 1) }))
	}
	g.figures, err = measure.Interleaved(ctx, measure.Options{Rounds: rounds, Collect: true}, ways)
	return g, err
}

// replayTraffic is messages of senders, from one after the other.
type replayTraffic struct {
	store     *sqlitereplay.Store
	opened    time.Time // of all streams
	sequences []uint64  // the last of each sender
	next      int
}

// handle claims and consumes the next n messages, each in one call.
func (t *replayTraffic) handle(ctx context.Context, n int) error {
	begin, end := make([]replay.Request, n), make([]replay.Finish, n)
	now := time.Now()
	for i := range begin {
		sender := t.next % len(t.sequences)
		t.next++
		t.sequences[sender]++
		begin[i] = replay.Request{
			ID:    replay.Identity{Sender: fmt.Sprint("sender", sender), Sequence: t.sequences[sender]},
			Token: replay.NewToken(), SealedAt: now, FreshUntil: now.Add(time.Hour), Now: now,
			RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Hour, Settled: t.sequences[sender] - 1,
		}
		opened := t.opened.UnixMilli()
		for j := range 6 {
			begin[i].ID.Stream[5-j] = byte(opened >> (8 * j)) //nolint:gosec // G115: a byte of it
		}
		end[i] = replay.Finish{ID: begin[i].ID, Token: begin[i].Token, Kind: replay.Consumed}
	}
	claims, err := t.store.Begin(ctx, "group", begin)
	if err != nil {
		return err
	}
	for i := range claims {
		if claims[i].Err != nil {
			return claims[i].Err
		}
	}
	finished, err := t.store.Finish(ctx, "group", end)
	if err != nil {
		return err
	}
	for i := range finished {
		if finished[i].Err != nil {
			return finished[i].Err
		}
	}
	return nil
}
