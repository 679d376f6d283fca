package sbemulator

import "sync"

// highWater is how many bytes may wait to be written to one connection before
// deliveries to it pause and its requests are read no further.
const highWater = 1 << 20

// outbox holds the bytes that wait to be written to a connection.
type outbox struct {
	wake chan struct{} // to the writer: there is something to do
	room chan struct{} // to the reader: something was taken

	mu    sync.Mutex
	buf   []byte
	spare []byte
	muted bool // what is added is dropped: the connection is about to be
	last  bool // nothing is added any more
}

func newOutbox() outbox {
	return outbox{wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// add has f append to what waits.
func (o *outbox) add(f func([]byte) []byte) {
	o.mu.Lock()
	if !o.muted && !o.last {
		o.buf = f(o.buf)
	}
	o.mu.Unlock()
	signal(o.wake)
}

// finish lets the writer end when it has written what waits.
func (o *outbox) finish() {
	o.mu.Lock()
	o.last = true
	o.mu.Unlock()
	signal(o.wake)
}

// mute drops what waits and all that comes.
func (o *outbox) mute() {
	o.mu.Lock()
	o.muted, o.buf = true, nil
	o.mu.Unlock()
}

func (o *outbox) size() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.buf)
}

// take returns what waits, valid until the next take, and whether it is the
// last.
func (o *outbox) take() (b []byte, last bool) {
	o.mu.Lock()
	b, last = o.buf, o.last
	o.buf, o.spare = o.spare[:0], b
	if cap(o.buf) > highWater {
		o.buf = nil
	}
	o.mu.Unlock()
	signal(o.room)
	return b, last
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
