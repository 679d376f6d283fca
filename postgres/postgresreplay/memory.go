package postgresreplay

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// This file notices that the database has lost calls that were confirmed, as after a
// failover to a standby that was behind, or a backup that was restored.
//
// Each call of a group that writes has a version higher by one. A process remembers the
// highest that was confirmed to it, and the run of the server that did so: the time from
// one start of a server to its end, or until a dump is restored. The database has the
// version at which each run began. So a process finds out that a version of its own is gone,
// also after others have written so much since that the version is as high as before.

// remembered is what was confirmed to this process about a group.
type remembered struct {
	stamp   replaystate.Stamp
	run     run
	version int64 // 0: nothing
}

// run names a run of a server: see serverRun.
type run struct{ started, file int64 }

// recall returns what is remembered of a group.
func (e *engine) recall(group string) remembered {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known[group]
}

// remember notes that a call was confirmed. Answers overtake each other.
func (e *engine) remember(group string, r remembered) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if k := e.known[group]; k.stamp.ID != r.stamp.ID || k.version < r.version {
		e.known[group] = r
	}
}

// runRow is the newest run that served a group, and the one that does now.
type runRow struct {
	id          int64 // 0: there is none
	newest, now run
}

// lost reports whether the database has not got all that was remembered when the call
// began. If the store has another ID than then, receivers stop because of that already,
// unless they would take the memory for the continuation of the one that they remember.
func (l *call) lost() bool {
	k := l.known
	switch {
	case l.err != nil || k.version == 0 || k.stamp.ID != l.stamp.ID && !l.continues(k.stamp):
		return false
	case l.group.version < k.version:
		return true
	case l.run.newest == k.run && l.run.now == k.run:
		return false
	}
	gone := true // unless the run is still there
	l.query(leastSince, func(r pgx.Rows) error {
		var least *int64
		err := r.Scan(&least)
		gone = least != nil && *least < k.version
		return err
	}, l.group.id, k.run.started, k.run.file)
	return l.err == nil && gone
}

// continues reports whether an operator has accepted the loss of another memory since the
// store had s, and nothing of s: what is gone of s the operator did not know of.
func (l *call) continues(s replaystate.Stamp) bool {
	h, _, err := l.e.readHistory(l.ctx, l.c)
	if l.fail(err) {
		return false
	}
	loss, ok := h.Accepted(s)
	return ok && loss.Lost.ID != s.ID
}

// keepRun renews the memory if it has lost something, and notes a new run.
func (l *call) keepRun() {
	if l.lost() {
		l.renew()
	}
	if l.err == nil && l.run.newest != l.run.now {
		l.exec(insertRun, l.group.id, l.run.id+1, l.run.now.started, l.run.now.file, l.group.version)
	}
}

// renew gives the memory another ID and another birth, so that the receivers of all
// processes notice. Calls of other groups may do so at the same time; then one wins.
func (l *call) renew() {
	uid := make([]byte, 16)
	_, _ = rand.Read(uid) // never fails: it ends the process instead
	if _, err := l.c.Exec(l.ctx, l.e.sql(insertLoss), l.stamp.ID[:], uid, l.env.Now); l.fail(err) {
		return
	}
	l.query(selectID, func(r pgx.Rows) error {
		err := r.Scan(&uid, &l.stamp.Birth)
		copy(l.stamp.ID[:], uid)
		return err
	})
	l.env.Birth = l.stamp.Birth
}

// errMemoryLost ends a call that only reads: one that writes has to renew the memory first.
var errMemoryLost = errors.New("the store has lost what it had confirmed")

// read runs do on one view of the database.
func (e *engine) read(ctx context.Context, group string, k want, do func(*call)) (replaystate.Stamp, error) {
	stamp, err := e.readOnce(ctx, group, k, do)
	if !errors.Is(err, errMemoryLost) {
		return stamp, err
	}
	if _, err := e.write(ctx, group, want{}, func(*call) {}); err != nil {
		return replaystate.Stamp{}, err
	}
	return e.readOnce(ctx, group, k, do)
}
