package sbqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
)

// connection is a client of the SDK, which keeps one AMQP connection and makes all its links
// over it. Over a network that has fallen silent the SDK finds out after a minute, by the
// connection's idle time-out, and each new link goes the way of the one before it. So a
// connection over which nothing is answered any more is replaced.
//
// Sessions are lost with their connection, and what one call asks can go unanswered alone: the
// service leaves the attach for a session so at times, beyond the time that it was given. So
// before a connection of sessions is replaced, some that ask nothing meanwhile are asked for
// their state.
type connection struct {
	b      *Broker
	create func() (*azservicebus.Client, error)

	mu sync.Mutex // guards what follows
	// current is behind a function, because package fmt prints what a pointer leads to if
	// the verb does not suit it, and a client holds the key.
	current  func() *azservicebus.Client
	life     context.Context // of current: until it is replaced, or the Broker is closed
	end      context.CancelFunc
	made     time.Time             // of current
	answered time.Time             // when a call was last answered
	doubted  time.Time             // when the first call began that was not, since then; zero: none
	holders  map[*session]struct{} // sessions over current
	asking   bool                  // some of them
}

// silentFor is how long nothing may be answered, on what was asked, until a connection
// counts as dead: a Send and a settlement give up after that time.
const silentFor = 8 * time.Second

// closeDoubted is how long closing a connection waits for answers if something was not answered.
const closeDoubted = time.Second

func newConnection(b *Broker, create func() (*azservicebus.Client, error)) (*connection, error) {
	c := &connection{b: b, create: create}
	client, err := create()
	if err != nil {
		return nil, err
	}
	c.use(client)
	return c, nil
}

// use makes client the current one. Called under mu, or before c is shared.
func (c *connection) use(client *azservicebus.Client) {
	if c.end != nil {
		c.end()
	}
	c.current = func() *azservicebus.Client { return client }
	c.life, c.end = context.WithCancel(c.b.life)
	c.made, c.doubted = time.Now(), time.Time{}
	c.holders = make(map[*session]struct{})
}

// client returns the client to make links with, and a context that ends when it is replaced.
func (c *connection) client() (*azservicebus.Client, context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current(), c.life
}

// hold says that a session lives over the connection, unless that was replaced meanwhile.
func (c *connection) hold(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.lossCtx.Err() == nil {
		c.holders[s] = struct{}{}
	}
}

func (c *connection) release(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.holders, s)
}

// close closes the connection. If something was not answered, it does not wait long.
func (c *connection) close(ctx context.Context) error {
	c.mu.Lock()
	client, doubted := c.current(), !c.doubted.IsZero()
	c.mu.Unlock()
	if doubted {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, closeDoubted)
		defer cancel()
	}
	return client.Close(ctx)
}

// heard notes that a call was answered.
func (c *connection) heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered, c.doubted = time.Now(), time.Time{}
}

// quiet reports whether nothing was answered for d.
func (c *connection) quiet(d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.answered) >= d && time.Since(c.made) >= d
}

// shortCall is how long a call lasts at least whose missing answer says something: callers
// may have shorter deadlines.
const shortCall = time.Second

// note takes in how a call over the connection ended that began then, and reports whether
// the connection was replaced for it.
func (c *connection) note(began time.Time, err error) (gone bool) {
	switch {
	case errors.Is(err, errSilent), errors.Is(err, errNoAnswer), errors.Is(err, context.DeadlineExceeded):
		return time.Since(began) >= shortCall && c.unheard(began)
	case !isDead(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, driver.ErrClosed):
		c.heard() // also if the answer was an error
	}
	return false
}

// unheard notes that a call which began then was not answered, and replaces the connection
// if none was for silentFor and no session has an answer. What is left of the old one is
// closed, so that its links are made anew. It reports whether the call was over an old
// connection by now.
func (c *connection) unheard(began time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case began.Before(c.made):
		return true
	case began.Before(c.answered):
		return false // others are answered
	case c.doubted.IsZero() || began.Before(c.doubted):
		c.doubted = began
	}
	if time.Since(c.doubted) < silentFor || c.asking {
		return false
	}
	if idle := c.idle(); len(idle) > 0 && c.b.begin(1) {
		c.asking = true
		go c.ask(idle)
		return false
	}
	return c.replace()
}

// askedSessions is how many sessions are asked whether the connection is alive: one may be what
// does not answer.
const askedSessions = 3

// idle returns some sessions that ask nothing at the moment. Called under mu.
func (c *connection) idle() []*session {
	var out []*session
	for s := range c.holders {
		if len(out) < askedSessions && len(s.attachToken) == 0 {
			out = append(out, s)
		}
	}
	return out
}

// ask asks sessions for their state, and replaces the connection if none has an answer.
func (c *connection) ask(sessions []*session) {
	defer c.b.calls.Done()
	var wg sync.WaitGroup
	for _, s := range sessions {
		wg.Go(func() { _, _ = s.State(context.Background()) }) // which notes an answer
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asking = false
	if !c.doubted.IsZero() && time.Since(c.doubted) >= silentFor {
		c.replace()
	}
}

// replace makes a new client the current one, and closes what is left of the old one, waiting
// for no answer: it had silentFor. It reports whether it did. Called under mu.
func (c *connection) replace() bool {
	fresh, err := c.create()
	if err != nil {
		return false // it worked once with the same arguments
	}
	old, life := c.current(), c.life
	c.use(fresh)
	c.b.discard(life, closing(old.Close))
	return true
}
