package sqlitefile

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
)

const (
	// groupSize and groupTime bound one transaction, in requests and in the
	// time before its commit: other processes wait meanwhile.
	groupSize = 256
	groupTime = 10 * time.Millisecond
	// rivalry is how long after it had to wait for the lock a process goes on
	// stepping back after its own commits. It does so for about as long as it
	// had waited, at most courtesy: then the others have had their turns, and
	// its own next transaction carries more.
	rivalry  = 100 * time.Millisecond
	courtesy = 4 * time.Millisecond
	// logCheck is every how many commits the log's size is looked at.
	logCheck = 64
)

// request is one call of Write. Only the writing goroutine touches answer and
// err, until it closes done.
type request struct {
	do     func(*Conn) error
	synced bool // the disk must have it before the answer
	state  atomic.Uint32
	answer error // what do had to say, of a transaction that is to be committed
	err    error
	done   chan struct{}
}

// The states of a request. The goroutine that moves it out of waiting owns it.
const (
	waiting uint32 = iota
	started
	withdrawn
)

func (r *request) start() bool { return r.state.CompareAndSwap(waiting, started) }

func (r *request) finish(err error) {
	r.err = err
	close(r.done)
}

// Write runs do in a transaction and returns after its commit. Other calls may
// share the transaction; each sees what those before it did. An error of do that
// is a driver.Error is an answer: what do did is committed, and Write returns it.
// When do fails otherwise, or the commit does, everything is undone and each call
// is tried again on its own: so do may run more than once, has no effect but on
// the file and on variables that it sets anew, and an error of one call never
// undoes another. It may run on the goroutine of any caller, and must not panic.
//
// When ctx ends before do was started Write returns ctx.Err() and do never runs;
// afterwards it returns what became of the transaction.
func (f *File) Write(ctx context.Context, do func(*Conn) error) error {
	return f.submit(ctx, &request{do: do, synced: true, done: make(chan struct{})})
}

// WriteUnsynced is Write for what may be lost when the machine stops: it returns
// without waiting for the disk, unless it shares a transaction with a Write. The
// order of all writes holds all the same: what is synced later syncs it, too.
func (f *File) WriteUnsynced(ctx context.Context, do func(*Conn) error) error {
	return f.submit(ctx, &request{do: do, done: make(chan struct{})})
}

func (f *File) submit(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return ErrClosed
	}
	f.pending = append(f.pending, r)
	f.mu.Unlock()
	f.lead()
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.state.CompareAndSwap(waiting, withdrawn) {
			return ctx.Err()
		}
		<-r.done
	}
	return r.err
}

func (f *File) rouse() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// lead writes what is pending on the caller's goroutine, if no transaction is under way and
// no other process is in the way: two changes of goroutines take as long as some statements.
// What has to wait is left to the writing goroutine, which release wakes, and the repeats of a
// failure to one of their own: the caller may have its answer long before others have theirs.
func (f *File) lead() {
	if f.rivals.Load() {
		f.rouse()
		return
	}
	select {
	case f.owner <- struct{}{}:
	default:
		return
	}
	if undone := f.leadBatch(f.gather()); len(undone) > 0 {
		go func() {
			defer f.release()
			f.each(undone)
		}()
		return
	}
	f.release()
}

// leadBatch writes a batch if it can do so at once. It returns what each must try again.
func (f *File) leadBatch(batch []*request) (undone []*request) {
	if len(batch) == 0 {
		return nil // another owner had it
	}
	begun, err := false, f.ready(batch)
	if err == nil {
		begun, err = f.beginNow()
	}
	switch {
	case err != nil:
		refuse(batch, err)
	case begun:
		return f.transact(batch)
	default:
		f.putBack(batch)
	}
	return nil
}

// release lets others use the writer. What came meanwhile and found it in use is left to the
// writing goroutine.
func (f *File) release() {
	<-f.owner
	if f.waiting() > 0 {
		f.rouse()
	}
}

// withSynced takes requests for which the disk must be waited, too.
const withSynced = true

// take returns what waits to be written, up to limit requests, and without
// synced only up to the first that must be.
func (f *File) take(limit int, synced bool) []*request {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < min(limit, len(f.pending)) && (synced || !f.pending[n].synced) {
		n++
	}
	batch := f.pending[:n:n]
	f.pending = f.pending[n:]
	if len(f.pending) == 0 {
		f.pending = nil
	}
	return batch
}

// gather takes what waits to be written. As long as more comes, it lets other goroutines run
// first: callers that were answered together come back together.
func (f *File) gather() []*request {
	for last, n := 0, f.waiting(); last < n && n < groupSize; n = f.waiting() {
		last = n
		runtime.Gosched()
	}
	return f.take(groupSize, withSynced)
}

// waiting returns how many requests wait to be written.
func (f *File) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pending)
}

// putBack undoes take.
func (f *File) putBack(batch []*request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = append(batch, f.pending...)
}

// refuse ends requests that have not begun.
func refuse(batch []*request, err error) {
	for _, r := range batch {
		if r.start() {
			r.finish(Classify(err))
		}
	}
}

// run is the writing goroutine.
func (f *File) run() {
	defer close(f.done)
	w := watch{file: f, pause: pollMin}
	var waited time.Duration // for the lock, when it was last in other hands
	var rival time.Time      // when that was
	for {
		f.owner <- struct{}{}
		batch := f.gather()
		if len(batch) > 0 {
			if d := f.write(batch); d > 0 {
				waited, rival = min(d, courtesy), time.Now()
			}
		}
		f.release()
		rivals := time.Since(rival) < rivalry
		f.rivals.Store(rivals)
		switch {
		case len(batch) > 0 && rivals:
			f.pause(waited/2 + rand.N(waited/2+1)) //nolint:gosec // G404: jitter, not a secret
		case len(batch) == 0 && !w.idle():
			w.stop()
			f.owner <- struct{}{} // for good
			f.shut()
			return
		}
	}
}

// shut fails what is left and closes the connections.
func (f *File) shut() {
	refuse(f.take(math.MaxInt, withSynced), ErrClosed)
	for range f.config.Readers {
		if c := <-f.readers; c != nil {
			_ = c.close() // it only read
		}
	}
	f.turns.close()
	f.closeErr = Classify(f.writer.close())
}

// write commits a batch, and what comes in meanwhile, as one transaction. It
// returns how long others kept it from the lock, 0 for not at all.
func (f *File) write(batch []*request) (waited time.Duration) {
	err := f.ready(batch)
	if err == nil {
		waited, err = f.beginGroup(batch)
	}
	if err != nil {
		refuse(batch, err)
		return waited
	}
	f.each(f.transact(batch))
	return waited
}

// ready prepares the connection for the transaction of a batch.
func (f *File) ready(batch []*request) error {
	synced := anySynced(batch)
	look := f.lately
	if synced {
		look = f.inPlace // it will be confirmed that the disk has it
	}
	if err := look(); err != nil {
		return err
	}
	return f.setSynced(synced)
}

func anySynced(batch []*request) bool {
	return slices.ContainsFunc(batch, func(r *request) bool { return r.synced })
}

// transact runs and commits a batch, and what comes in meanwhile, in the transaction that has
// begun. If it fails, it returns those that have no answer yet, for each.
func (f *File) transact(batch []*request) (undone []*request) {
	if err := f.observe(); err != nil {
		f.undo()
		refuse(batch, err)
		return nil
	}
	synced := anySynced(batch)
	began := time.Now()
	ran := make([]*request, 0, len(batch))
	var err error
	for len(batch) > 0 && err == nil {
		for len(batch) > 0 && err == nil {
			r := batch[0]
			batch = batch[1:]
			if r.start() {
				ran = append(ran, r)
				err = r.run(f.writer)
			}
		}
		if err == nil && len(ran) < groupSize && time.Since(began) < groupTime {
			batch = f.take(groupSize-len(ran), synced)
		}
	}
	if err == nil {
		err = f.commit()
	}
	if err == nil {
		for _, r := range ran {
			r.finish(r.answer)
		}
		f.cutLog()
		return nil
	}
	f.undo()
	full := kindOf(code(err)) == driver.Full
	if full {
		// What the log takes may be all that is missing.
		f.checkpoint()
	}
	if len(ran) == 1 && !full {
		ran[0].finish(Classify(err))
		ran = nil
	}
	return append(ran, batch...) // batch is what came behind the one that failed
}

// each runs requests one by one, but for those that were withdrawn. When one has
// waited for the lock in vain the others do not wait as long again.
func (f *File) each(all []*request) {
	var locked error
	for _, r := range all {
		if r.state.Load() != started && !r.start() {
			continue
		}
		err := locked
		if err == nil {
			err = f.alone(r)
		}
		if busy(err) {
			locked = err
		}
		r.finish(err)
	}
}

// cutLog makes a checkpoint, every logCheck commits, if readers kept the log from starting
// over and it has become too large.
func (f *File) cutLog() {
	if all, _ := f.Commits(); all%logCheck == 0 && f.logSize() > logLimit {
		f.checkpoint()
	}
}

// checkpoint moves the log into the file and empties it. If readers or the disk are in
// the way, it moves what it can; the next one tries again.
func (f *File) checkpoint() { _ = f.writer.script("PRAGMA wal_checkpoint(TRUNCATE)") }

// setSynced says whether the next commit waits for the disk.
func (f *File) setSynced(on bool) error {
	if f.config.Normal || f.unsynced == !on {
		return nil
	}
	level := "NORMAL"
	if on {
		level = "FULL"
	}
	_, err := f.writer.Exec("PRAGMA synchronous = " + level)
	if err == nil {
		f.unsynced = !on
	}
	return err
}

// commit ends the transaction; with synchronous FULL the disk has it then.
func (f *File) commit() error {
	_, err := f.writer.Exec("COMMIT")
	if err != nil {
		return err
	}
	synced := 1
	if f.config.Normal || f.unsynced {
		synced = 0
	}
	f.commits[synced].Add(1)
	if f.version, err = f.writer.dataVersion(); err != nil {
		f.writer.epoch++ // what was committed is, but the next change could go unseen
	}
	return nil
}

// observe begins an epoch, verifies the schema and calls Changed, if another connection has
// changed the file since the last commit. It is called at the begin of a transaction.
func (f *File) observe() error {
	version, err := f.writer.dataVersion()
	if err != nil || version == f.version && f.writer.epoch > 0 {
		return err
	}
	f.writer.epoch++
	if f.config.Changed != nil && f.watched() {
		f.config.Changed()
	}
	if err := f.verifySchema(f.writer); err != nil {
		return err
	}
	f.version = version
	return nil
}

// undo undoes the writer's transaction, which ends the epoch.
func (f *File) undo() {
	rollback(f.writer)
	f.writer.epoch++
}

// run calls do and tells answers from failures.
func (r *request) run(c *Conn) error {
	var answer *driver.Error
	err := r.do(c)
	if r.answer = nil; errors.As(err, &answer) {
		r.answer, err = err, nil
	}
	return err
}

// alone runs a request in a transaction of its own.
func (f *File) alone(r *request) error {
	err := f.setSynced(r.synced)
	if err == nil {
		err = f.begin(context.Background(), f.writer)
	}
	if err != nil {
		return Classify(err)
	}
	if err = f.observe(); err == nil {
		err = r.run(f.writer)
	}
	if err == nil {
		err = f.commit()
	}
	if err != nil {
		f.undo()
		return Classify(err)
	}
	return r.answer
}

// beginGroup takes the write lock, and gives up when all requests of the batch have
// ended. It returns how long other processes had the lock meanwhile.
func (f *File) beginGroup(batch []*request) (waited time.Duration, err error) {
	wanted, done := context.WithCancel(context.Background())
	defer done()
	var met time.Time
	err = f.pass(wanted, func() error {
		return f.awaitLock(wanted, func() error {
			_, err := f.writer.Exec("BEGIN IMMEDIATE")
			if busy(err) {
				if met.IsZero() {
					met = time.Now()
				}
				if !anyWaiting(batch) {
					done()
				}
			}
			return err
		})
	})
	if !met.IsZero() {
		waited = time.Since(met)
	}
	return waited, err
}

func anyWaiting(batch []*request) bool {
	for _, r := range batch {
		if r.state.Load() == waiting {
			return true
		}
	}
	return false
}

// beginNow takes the write lock if no other process has it or waits for it.
func (f *File) beginNow() (begun bool, err error) {
	if f.turns.file != nil {
		if !tryLock(f.turns.file) {
			return false, nil
		}
		defer unlock(f.turns.file)
	}
	_, err = f.writer.Exec("BEGIN IMMEDIATE")
	if busy(err) {
		return false, nil
	}
	return err == nil, err
}

// begin takes the write lock.
func (f *File) begin(ctx context.Context, c *Conn) error {
	return f.pass(ctx, func() error {
		return f.awaitLock(ctx, func() error {
			_, err := c.Exec("BEGIN IMMEDIATE")
			return err
		})
	})
}

// rollback undoes the transaction. Its error would say that SQLite has done so by
// itself already, as it does when the disk is full.
func rollback(c *Conn) { _, _ = c.Exec("ROLLBACK") }

// awaitLock calls do until it no longer meets another's lock. SQLite's own
// waiting (busy_timeout) sleeps for up to 100 ms at a time, which would leave a
// lock that is held for two milliseconds unused for most of the time.
func (f *File) awaitLock(ctx context.Context, do func() error) error {
	var began time.Time
	for {
		err := do()
		if !busy(err) {
			return err
		}
		if began.IsZero() {
			began = time.Now()
		}
		waited := time.Since(began)
		if waited >= f.config.LockTimeout {
			return driver.Errorf(driver.Unavailable, "locked by another process for %v: %w", f.config.LockTimeout, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// A tenth of the time waited, between 0.1 and 2 ms: a transaction takes some
		// milliseconds, and no more than one process waits here (turnstile).
		pause := min(max(waited/10, 100*time.Microsecond), 2*time.Millisecond)
		if !f.pauseFor(ctx, pause/2+rand.N(pause)) { //nolint:gosec // G404: jitter, not a secret
			return ErrClosed
		}
	}
}

// pause waits, and less when the file closes.
func (f *File) pause(d time.Duration) { f.pauseFor(context.Background(), d) }

// pauseFor waits until the time is over or ctx ends; it reports false when the
// file closes first.
func (f *File) pauseFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-f.closing:
		return false
	}
	return true
}
