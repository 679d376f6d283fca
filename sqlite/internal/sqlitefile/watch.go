package sqlitefile

import (
	"bytes"
	"runtime/debug"
	"time"
)

// How long a process waits before it looks for commits of others while a caller watches.
// A look takes about 5 us.
const (
	// Without news from the system: soon after the last commit, then ever more rarely.
	pollMin = time.Millisecond
	pollMax = 20 * time.Millisecond
	// The system tells of writes to the log. A commit comes some time after the last of
	// its writes, when the disk has it: it is looked for after newsMin, then ever more
	// rarely up to pollMax. When no news came for newsMax, looks only find out, as often,
	// whether the system tells of everything.
	newsMin = 200 * time.Microsecond
	newsMax = time.Second
	// After as many commits as that of which the system did not tell, it is not relied on.
	missedMax = 3
)

// Watch says that a caller begins to wait for changes by other processes. Each call is
// followed by one of Unwatch.
func (f *File) Watch() {
	f.mu.Lock()
	f.watchers++
	first := f.watchers == 1
	f.mu.Unlock()
	if first {
		f.rouse()
	}
}

// Unwatch says that a caller no longer waits.
func (f *File) Unwatch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watchers--
}

func (f *File) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watchers > 0
}

// watch notices commits of other connections. It belongs to the writing goroutine.
type watch struct {
	file   *File
	news   *logNews // nil: there are none
	silent bool     // the system gives none, or not all
	armed  bool     // news come
	missed int      // commits of which no news came, in a row

	last    time.Time // when the last news came
	commits int64     // of this File, at that time

	pause time.Duration // before the next look
	next  time.Time     // when that is
}

// idle waits until there may be something to write. Meanwhile it looks for changes if a
// caller watches. It reports false when the file closes.
func (w *watch) idle() bool {
	var look <-chan time.Time
	var news <-chan struct{}
	if w.arm() {
		t := time.NewTimer(time.Until(w.next))
		defer t.Stop()
		look = t.C
	}
	if w.armed {
		news = w.news.written
	}
	select {
	case <-w.file.closing:
		return false
	case <-w.file.wake:
		if !w.armed {
			w.soon(pollMin)
		}
	case <-news:
		w.heard()
	case <-look:
		w.look()
	}
	return true
}

// arm makes news come if and only if a caller watches, because each of one's own commits is
// news, too. It reports whether a caller does.
func (w *watch) arm() (watched bool) {
	watched = w.file.watched()
	if watched && w.news == nil && !w.silent {
		if !inBubble() {
			w.news = openNews(w.file.path + "-wal")
		}
		w.silent = w.news == nil
	}
	if w.news == nil || watched == w.armed {
		return watched
	}
	if w.armed = w.news.listen(watched); watched && !w.armed {
		w.stop()
	}
	w.soon(pollMin) // for what was committed before
	return watched
}

// inBubble reports whether the calling goroutine belongs to a bubble of testing/synctest: there
// time would stand still while a goroutine waits for the system. Only the trace of a goroutine
// tells.
func inBubble() bool {
	header, _, _ := bytes.Cut(debug.Stack(), []byte("\n"))
	return bytes.Contains(header, []byte("synctest bubble"))
}

// stop gives up the news.
func (w *watch) stop() {
	if w.news != nil {
		w.news.close()
	}
	w.news, w.armed, w.silent = nil, false, true
}

// heard takes in that the log was written to.
func (w *watch) heard() {
	before := w.commits
	w.commits, _ = w.file.Commits()
	w.last = time.Now()
	if w.commits != before {
		w.soon(pollMin) // most likely by this process, whose transactions look, too
		return
	}
	w.soon(newsMin)
}

// soon makes the next look come after a pause, if it would come later.
func (w *watch) soon(pause time.Duration) {
	w.pause = pause
	if now := time.Now(); w.next.Before(now) || now.Add(pause).Before(w.next) {
		w.next = now.Add(pause)
	}
}

// look looks for changes, which calls Changed if there are any, and says when to look next.
func (w *watch) look() {
	changed := w.file.look()
	switch {
	case changed && w.armed && w.pause == newsMax:
		if w.missed++; w.missed == missedMax {
			w.stop()
		}
		w.pause = pollMin
	case changed:
		w.missed, w.pause = 0, pollMin
	case !w.armed:
		w.pause = min(w.pause*5/4, pollMax)
	case time.Since(w.last) < newsMax:
		w.pause = min(w.pause*2, pollMax)
	default:
		w.pause = newsMax
	}
	w.next = time.Now().Add(w.pause)
}

// look reports whether another connection has changed the file since the last transaction
// or look.
func (f *File) look() bool {
	f.owner <- struct{}{}
	defer f.release()
	before := f.writer.epoch
	// A statement that reads takes up the newest state of the file.
	if _, err := f.writer.Int("SELECT 1 FROM sqlite_schema LIMIT 1"); err == nil {
		_ = f.observe() // the next write or read reports the error
	}
	return f.writer.epoch != before
}
