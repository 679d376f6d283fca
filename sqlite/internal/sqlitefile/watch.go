package sqlitefile

import "time"

// How often an idle process looks for commits of others while a call waits: soon
// after the last commit, then ever more rarely. A look takes about 10 us, so that
// waiting costs about one part in two thousand of a processor.
const (
	pollMin = time.Millisecond
	pollMax = 20 * time.Millisecond
)

// Watch says that a caller begins to wait for changes by other processes (on), or no
// longer waits. Each call with true is followed by one with false.
func (f *File) Watch(on bool) {
	f.mu.Lock()
	if on {
		f.watchers++
	} else {
		f.watchers--
	}
	first := on && f.watchers == 1
	f.mu.Unlock()
	if first {
		f.rouse()
	}
}

func (f *File) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watchers > 0
}

// watch notices commits of other connections by PRAGMA data_version, which
// stays as it is over commits of the connection that asks. It belongs to the
// writing goroutine.
type watch struct {
	file     *File
	version  int64
	interval time.Duration
}

// idle waits until there may be something to write. Meanwhile it looks for changes if a
// caller watches. It reports false when the file closes.
func (w *watch) idle() bool {
	var look <-chan time.Time
	if w.file.watched() {
		t := time.NewTimer(w.interval)
		defer t.Stop()
		look = t.C
	}
	select {
	case <-w.file.closing:
		return false
	case <-w.file.wake:
		w.interval = pollMin
	case <-look:
		w.interval = min(w.interval*5/4, pollMax)
		w.look()
	}
	return true
}

// look calls Changed when others have committed since the last look.
func (w *watch) look() {
	if w.file.config.Changed == nil || !w.file.watched() {
		return
	}
	version, err := w.file.writer.Int("PRAGMA data_version")
	if err != nil || version == w.version {
		return // the next write or read reports the error
	}
	w.version, w.interval = version, pollMin
	w.file.config.Changed()
}
