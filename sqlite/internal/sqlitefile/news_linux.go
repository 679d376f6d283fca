package sqlitefile

import (
	"os"
	"syscall"
)

// logNews tells of writes to a file, by inotify(7). It owns one goroutine, which ends with
// close. Its methods are for one goroutine.
type logNews struct {
	path    string
	events  *os.File
	fd      int // that of events: File.Fd would make it block
	watch   int // the descriptor of the watch, -1 for none
	written chan struct{}
	done    chan struct{}
}

// openNews returns nil if the system gives no more of them.
func openNews(path string) *logNews {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil
	}
	n := &logNews{
		path: path, fd: fd, watch: -1, events: os.NewFile(uintptr(fd), "inotify"), //nolint:gosec // G115: a file descriptor
		written: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go n.run()
	return n
}

// run passes news on. Several that were not heard yet are one.
func (n *logNews) run() {
	defer close(n.done)
	events := make([]byte, 4096)
	for {
		if _, err := n.events.Read(events); err != nil {
			return // closed
		}
		select {
		case n.written <- struct{}{}:
		default:
		}
	}
}

// listen begins or ends the news. It reports whether they come.
func (n *logNews) listen(on bool) bool {
	var err error
	switch {
	case on && n.watch < 0:
		if n.watch, err = syscall.InotifyAddWatch(n.fd, n.path, syscall.IN_MODIFY); err != nil {
			n.watch = -1
		}
	case !on && n.watch >= 0:
		_, _ = syscall.InotifyRmWatch(n.fd, uint32(n.watch)) //nolint:gosec // G115: at least 0
		n.watch = -1
	}
	return n.watch >= 0
}

func (n *logNews) close() {
	_ = n.events.Close() // nothing was written to it
	<-n.done
}
