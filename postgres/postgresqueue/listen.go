package postgresqueue

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/queue-runtime/queue/postgres/internal/database"
)

// Notifications go from the process that changed a queue to the processes that wait:
// on one channel a schema, with the number of the queue as payload. They are sent in
// a transaction of their own after the one that they are about: NOTIFY takes a lock of
// the whole database until its transaction has ended, so that commits of transactions
// with a NOTIFY wait for the disk one after the other. What is lost with a process that
// ends in between is found by the next poll.

// channel is the name of the schema's channel.
func (b *Broker) channel() string { return b.options.Schema + "_queue" }

// notes are the numbers of queues that other processes have to hear of.
type notes struct {
	wake chan struct{} // has room for one

	mu     sync.Mutex // guards what follows
	queues map[int64]struct{}
}

func (n *notes) add(queues []int64) {
	n.mu.Lock()
	if n.queues == nil {
		n.queues = make(map[int64]struct{})
	}
	for _, q := range queues {
		n.queues[q] = struct{}{}
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *notes) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for q := range n.queues {
		list = append(list, strconv.FormatInt(q, 10))
	}
	clear(n.queues)
	return list
}

// announce wakes the calls that wait for these queues, here and in other processes.
func (b *Broker) announce(queues ...int64) {
	b.arrivals.Notify(queues...)
	if !b.options.Pooled {
		b.notes.add(queues)
	}
}

// notifyEvery bounds how often a process notifies: queues that changed in the
// meantime share one notification.
const notifyEvery = 2 * time.Millisecond

// notify is the broker's goroutine that sends notifications.
func (b *Broker) notify() {
	for {
		select {
		case <-b.life.Done():
			last, cancel := context.WithTimeout(context.Background(), grace)
			b.sendNotes(last)
			cancel()
			return
		case <-b.notes.wake:
		}
		b.sendNotes(b.life)
		t := time.NewTimer(notifyEvery)
		select {
		case <-b.life.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

func (b *Broker) sendNotes(ctx context.Context) {
	list := b.notes.take()
	if len(list) == 0 {
		return
	}
	// An error is left to the calls that meet it too: the others poll.
	_ = b.request(ctx, func(ctx context.Context, c *conn) error {
		_, err := c.Exec(ctx, `SELECT pg_catalog.pg_notify($1, n) FROM pg_catalog.unnest($2::text[]) n`, b.channel(), list)
		return err
	})
}

// listener starts the broker's goroutine that listens, once.
type listener struct {
	once  sync.Once
	ready chan struct{} // closed when it listens, or failed to at its first attempt
}

// listenNow starts listening, and returns whether it did so just now.
func (b *Broker) listenNow(ctx context.Context) bool {
	if b.options.Pooled {
		return false
	}
	began := false
	b.listen.once.Do(func() {
		b.listen.ready = make(chan struct{})
		began = b.queues.Do(func() { b.owned.Go(func() { b.hear(b.listen.ready) }) })
		if !began {
			close(b.listen.ready)
		}
	})
	select {
	case <-b.listen.ready:
	case <-b.life.Done(): // perhaps before the goroutine began
	case <-ctx.Done():
	}
	return began
}

const (
	// A connection that fails is opened again after relistenFirst, then after twice
	// as long each time, up to relistenLast. Meanwhile calls poll.
	relistenFirst = 100 * time.Millisecond
	relistenLast  = 10 * time.Second
)

// hear listens until the broker closes.
func (b *Broker) hear(ready chan struct{}) {
	pause := relistenFirst
	for first := true; b.life.Err() == nil; first = false {
		heard := b.hearOnce(func() {
			pause = relistenFirst
			if first {
				close(ready)
			} else {
				b.arrivals.NotifyAll() // some were missed
			}
		})
		if first && !heard {
			close(ready)
		}
		t := time.NewTimer(pause)
		select {
		case <-b.life.Done():
		case <-t.C:
		}
		t.Stop()
		pause = min(2*pause, relistenLast)
	}
}

// hearOnce listens over one connection until it fails. It calls begun when it listens,
// and returns whether it did.
func (b *Broker) hearOnce(begun func()) bool {
	connecting, cancel := context.WithTimeout(b.life, b.options.Timeout)
	defer cancel()
	c, err := database.Connect(connecting, b.pool.Config())
	if err != nil {
		return false
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(closing)
	}()
	if _, err := c.Exec(connecting, `LISTEN `+b.channel()); err != nil {
		return false
	}
	begun()
	for {
		// A connection whose other end is gone says nothing: ask now and then.
		hearing, cancel := context.WithTimeout(b.life, listenCheck)
		n, err := c.WaitForNotification(hearing)
		cancel()
		switch {
		case err == nil:
			if queue, err := strconv.ParseInt(n.Payload, 10, 64); err == nil {
				b.arrivals.Notify(queue)
			}
		case b.life.Err() != nil:
			return true
		case hearing.Err() != nil && !c.IsClosed():
			asking, cancel := context.WithTimeout(b.life, b.options.Timeout)
			err := c.Ping(asking)
			cancel()
			if err != nil {
				return true
			}
		default:
			return true
		}
	}
}

// listenCheck is how often to ask whether the connection that listens still is one.
const listenCheck = 30 * time.Second
