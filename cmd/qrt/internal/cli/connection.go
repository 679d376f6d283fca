package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// connection is what a command works over. Close it.
type connection struct {
	app      *app
	client   *queue.Client
	broker   driver.Broker
	nonces   *connect.ReplayStore
	keys     *keys.Cached            // nil means none
	ofQueues map[string]*keys.Cached // queues with keys of their own
}

// access says what a command is about to do.
type access struct {
	// queues are those that the command works on: their own keys are opened.
	queues []string
	// named are the queues that were named by the user, if queues are not: an error says
	// which name was perhaps meant.
	named []string
	// looks: the command makes nothing, neither a file nor a queue.
	looks bool
	// plain: send without sealing, whatever keys there are.
	plain bool
	// rehearse is called before the broker is opened, with a client of the same settings over
	// a broker in memory. Its error ends the command, which has made nothing then.
	rehearse func(*connection, *queue.Client) error
	// rejected is called for each message that is received and not delivered.
	rejected func(*queue.RejectedError)
}

// connect opens broker, keys and replay store as the settings have it.
func (a *app) connect(ctx context.Context, n access) (*connection, error) {
	rawURL, err := a.brokerURL(n.looks)
	if err != nil {
		return nil, err
	}
	c := &connection{app: a, ofQueues: make(map[string]*keys.Cached)}
	if err := c.open(ctx, rawURL, n); err != nil {
		return nil, errors.Join(err, c.close(ctx))
	}
	return c, nil
}

func (c *connection) open(ctx context.Context, rawURL string, n access) (err error) {
	s := &c.app.settings
	if s.nonces.value != "" {
		if err := connect.CheckReach(s.broker.value, s.nonces.value); err != nil {
			return err
		}
	}
	if s.keys.value != "" {
		if c.keys, err = c.app.openKeysAt(ctx, s.keys); err != nil {
			return err
		}
	}
	for _, name := range n.queues {
		if own := s.queues[name].Keys; own != "" && c.ofQueues[name] == nil {
			if c.ofQueues[name], err = c.app.openKeysAt(ctx, setting{own, s.file}); err != nil {
				return fmt.Errorf("keys of queue %q: %w", name, err)
			}
		}
	}
	if n.rehearse != nil {
		if err := c.rehearse(ctx, n); err != nil {
			return err
		}
	}
	if c.broker, err = connect.OpenBroker(ctx, rawURL); err != nil {
		return c.app.explainOpen(err, n.looks)
	}
	if s.nonces.value != "" {
		if c.nonces, err = connect.OpenReplayStore(ctx, s.nonces.value); err != nil {
			return err
		}
		if err := connect.CheckReach(s.broker.value, s.nonces.value); err != nil {
			return err
		}
	}
	o := c.options(n)
	if c.nonces != nil {
		o.ReplayStore = c.nonces
	}
	c.client, err = queue.New(c.broker, o)
	return err
}

// rehearse does what a command does first over a broker in memory.
func (c *connection) rehearse(ctx context.Context, n access) error {
	o := c.options(n)
	o.Logger = slog.New(slog.DiscardHandler) // the command logs it again
	client, err := queue.New(memqueue.New(nil), o)
	if err != nil {
		return err
	}
	return errors.Join(n.rehearse(c, client), client.Close(ctx))
}

// options are the settings of a client.
func (c *connection) options(n access) *queue.Options {
	s := &c.app.settings
	o := &queue.Options{
		Crypto: queue.CryptoConfig{
			Enabled:         !n.plain && (c.keys != nil || len(c.ofQueues) > 0),
			PlaintextPolicy: s.plaintextPolicy(),
			TrackReplays:    c.nonces != nil,
		},
		Environment: s.environment.value,
		Logger:      c.app.logger(),
		KeysFor:     c.keysFor,
	}
	if c.keys != nil {
		o.Keys = c.keys
	}
	if n.rejected != nil {
		o.OnRejected = func(_ context.Context, e *queue.RejectedError) { n.rejected(e) }
	}
	return o
}

func (c *connection) keysFor(name string) keys.Provider {
	if own := c.ofQueues[name]; own != nil {
		return own
	}
	return nil
}

// provider returns the keys of a queue, nil if there are none.
func (c *connection) provider(name string) keys.Provider {
	if own := c.ofQueues[name]; own != nil {
		return own
	}
	if c.keys != nil {
		return c.keys
	}
	return nil
}

// close closes all that was opened. It runs in any case, so that messages that
// are held go back.
func (c *connection) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	var errs []error
	if c.client != nil {
		errs = append(errs, c.client.Close(ctx))
	} else if c.broker != nil {
		errs = append(errs, c.broker.Close(ctx))
	}
	if c.nonces != nil {
		errs = append(errs, c.nonces.Close(ctx))
	}
	if c.keys != nil {
		errs = append(errs, c.keys.Close(ctx))
	}
	for _, k := range c.ofQueues {
		if k != nil {
			errs = append(errs, k.Close(ctx))
		}
	}
	return errors.Join(errs...)
}

// with runs f over a connection and closes it.
func (a *app) with(ctx context.Context, n access, f func(*connection) error) error {
	c, err := a.connect(ctx, n)
	if err != nil {
		return err
	}
	err = c.explainMissing(ctx, f(c), append(n.named, n.queues...))
	if cerr := c.close(ctx); err == nil {
		err = cerr
	}
	return err
}

// sender opens a queue for sending.
func (c *connection) sender(ctx context.Context, name string, o *queue.SenderOptions) (*queue.Sender, error) {
	return c.client.Sender(ctx, name, o)
}

// crypto is the configuration of a receiver of a queue: the maximum age is the
// broker's retention, or fallbackAge if the broker cannot tell it.
func (c *connection) crypto(ctx context.Context, name string) (*queue.CryptoConfig, error) {
	s := &c.app.settings
	age, err := parseMaxAge(s.maxAge)
	if err != nil {
		return nil, err
	}
	if age == queue.QueueRetention {
		q, err := c.broker.Open(ctx, name, nil)
		if err != nil {
			return nil, err
		}
		if q.Capabilities().Retention == 0 {
			age = fallbackAge
		}
		if err := q.Close(ctx); err != nil {
			return nil, err
		}
	}
	return &queue.CryptoConfig{
		Enabled:         c.provider(name) != nil,
		PlaintextPolicy: s.plaintextPolicy(),
		MaxMessageAge:   age,
		TrackReplays:    c.nonces != nil,
	}, nil
}

// fallbackAge is the maximum age if the broker does not tell how long it
// keeps messages.
const fallbackAge = 14 * 24 * time.Hour

// receiver opens a queue for receiving. o is changed.
func (c *connection) receiver(ctx context.Context, name string, o queue.ReceiverOptions) (*queue.Receiver, error) {
	var err error
	if o.Crypto, err = c.crypto(ctx, name); err != nil {
		return nil, err
	}
	return c.client.Receiver(ctx, name, &o)
}

// deadLetters opens the dead-letter queue of a queue.
func (c *connection) deadLetters(ctx context.Context, name, group string) (*deadletter.Queue, error) {
	crypto, err := c.crypto(ctx, name)
	if err != nil {
		return nil, err
	}
	o := &deadletter.Options{Crypto: crypto, Group: group}
	switch c.broker.(type) {
	case *sqlitequeue.Broker, *postgresqueue.Broker:
		o.Wait = atOnceWait
	}
	return deadletter.Open(ctx, c.client, name, o)
}

// atOnceWait is how long a dead letter is waited for in a file or a database, where all
// that there is can be had at once.
const atOnceWait = 100 * time.Millisecond

// queueLister is a broker that knows its queues.
type queueLister interface {
	Queues(ctx context.Context) ([]string, error)
}

// names are the queues that a command is about: those it was given, else those
// of the configuration, else all that the broker knows of.
func (c *connection) names(ctx context.Context, given []string) ([]string, error) {
	if len(given) > 0 {
		return given, nil
	}
	if named := c.app.settings.queueNames(); len(named) > 0 {
		return named, nil
	}
	if l, ok := c.broker.(queueLister); ok {
		names, err := l.Queues(ctx)
		return slices.DeleteFunc(names, func(name string) bool { return name == probeQueue }), err
	}
	return nil, usagef("name the queues: this broker does not list them, and the configuration file has no [queues]")
}

func (s *settings) queueNames() []string {
	var names []string
	for name := range s.queues {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// brokerURL is the URL of the broker. If it is the default, its folder is created,
// unless the command only reads.
func (a *app) brokerURL(looks bool) (string, error) {
	s := a.settings.broker
	if !s.given() {
		dir, err := dataDir()
		if err != nil {
			return "", usagef("no --broker, and there is no folder for a default one: %w", err)
		}
		if !looks {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return "", err
			}
		}
	}
	if !looks || !strings.HasPrefix(strings.ToLower(s.value), "sqlite:") {
		return s.value, nil
	}
	return mustExist(s.value), nil
}

// mustExist sets must_exist in a URL. It returns one that does not parse as it is: opening it
// tells what is wrong.
func mustExist(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return rawURL
	}
	q.Set("must_exist", "true")
	u.RawQuery = q.Encode()
	return u.String()
}

// explainOpen says what to do about a broker that is not there yet.
func (a *app) explainOpen(err error, looks bool) error {
	if looks && !a.settings.broker.given() && errors.Is(err, os.ErrNotExist) {
		dir, _ := dataDir() // it was found before
		return &exitError{exitNothing, "nothing_found", advise(
			fmt.Errorf("there is no queue of this user yet (%s)", filepath.Join(dir, "queue.db")), "qrt send makes one; --broker names another broker")}
	}
	return err
}
