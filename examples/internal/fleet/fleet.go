package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/examples/webhook-router/router"
	"github.com/queue-runtime/queue/keys"
)

// Queues are the queues of the three bots, in the order of Fleet.Bots.
var Queues = [...]string{"task-tactician", "merge-warden", "spec-sentinel"}

// queueVariables are the prefixes of their variables in the router's environment.
var queueVariables = [...]string{"TASK_TACTICIAN", "MERGE_WARDEN", "SPEC_SENTINEL"}

// Options configure a Fleet.
type Options struct {
	// Dir is a folder for the database, the keys and the replay stores. It is
	// needed, and stays the caller's.
	Dir string

	// Programs is a folder with the binaries. Empty means the running binary is both;
	// see Become.
	Programs string

	// Sets is how many processes each bot is, as on several machines. They share its
	// queue, keys and replay store. 0 means 1.
	Sets int

	// Lock is how long a message is held by a bot that was killed. 0 means 30 s.
	Lock time.Duration

	// RouterEnv and BotEnv are settings, "NAME=value", beside those of the fleet.
	// The last of a name counts.
	RouterEnv, BotEnv []string

	// Logs gets the programs' logs. Nil means only errors show the last lines.
	Logs io.Writer
}

// Fleet is a router and three bots that run.
type Fleet struct {
	Router   *Process
	Bots     []*Process // those of a set, in the order of Queues, then those of the next
	Database string     // the file of the queues
	Secret   string     // of the webhooks
	Keys     [len(Queues)]keys.ID

	http *http.Client

	mu      sync.Mutex // guards what follows
	tasks   []consumer.Task
	changed chan struct{} // closed when there is a new task, or a program has ended by itself
	bad     error         // a line that is no task
}

// Start prepares a folder and starts the programs. It returns when all are
// ready; if it fails, none is left.
func Start(ctx context.Context, o *Options) (*Fleet, error) {
	f, err := New(o)
	if err != nil {
		return nil, err
	}
	for _, p := range f.processes() {
		if err := p.Start(ctx); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// SenderID is the ID of the router's sender keys.
const SenderID = "webhook-router"

// New prepares a folder and starts nothing.
func New(o *Options) (*Fleet, error) {
	if o.Dir == "" {
		return nil, errors.New("fleet: Options.Dir is empty")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	sets := max(o.Sets, 1)
	f := &Fleet{
		Bots:     make([]*Process, sets*len(Queues)),
		Database: filepath.Join(dir, "queues.db"),
		Secret:   rand.Text(),
		changed:  make(chan struct{}),
		http:     &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
	lock := o.Lock
	if lock == 0 {
		lock = 30 * time.Second
	}
	logs := o.Logs
	if logs != nil {
		logs = &lockedWriter{w: logs}
	}
	common := []string{
		"BROKER_URL=sqlite://" + filepath.ToSlash(f.Database) + "?dedup_window=1h&lock=" + lock.String(),
		"ADMIN_LISTEN=127.0.0.1:0",
		"LOG_LEVEL=INFO",
	}
	routerEnv := append(slices.Clone(common), "LISTEN=127.0.0.1:0", "WEBHOOK_SECRET="+f.Secret)
	for i, q := range Queues {
		key, err := keys.Generate(keys.ID(q+"-1"), nil)
		if err != nil {
			return nil, err
		}
		f.Keys[i] = key.ID()
		// The router has a sender key, which only seals; the bot has what it needs
		// to open, and no current key. Each has its own folder, as on two machines.
		own, err := key.Sender(SenderID)
		if err != nil {
			return nil, err
		}
		sealing, err := writeKey(filepath.Join(dir, "router"), q, own, key.ID())
		if err != nil {
			return nil, err
		}
		opening, err := writeKey(filepath.Join(dir, q), q, key, "")
		if err != nil {
			return nil, err
		}
		routerEnv = append(routerEnv, queueVariables[i]+"_KEYS_URL="+sealing)
		argv, env, err := command(o.Programs, botProgram)
		if err != nil {
			return nil, err
		}
		env = append(env, common...)
		env = append(env, "QUEUE="+q, "KEYS_URL="+opening, "SENDERS="+SenderID,
			"NONCES_URL=sqlite://"+filepath.ToSlash(filepath.Join(dir, q, "nonces.db")))
		for set := range sets {
			f.Bots[set*len(Queues)+i] = &Process{
				Name: q, argv: argv, env: slices.Concat(env, o.BotEnv), out: f.report, logs: logs, fell: f.wake, addresses: make(map[string]string),
			}
		}
	}
	argv, env, err := command(o.Programs, routerProgram)
	if err != nil {
		return nil, err
	}
	env = append(append(env, routerEnv...), o.RouterEnv...)
	f.Router = &Process{Name: routerProgram, argv: argv, env: env, out: func([]byte) {}, logs: logs, fell: f.wake, addresses: make(map[string]string)}
	return f, nil
}

// writeKey writes a key file and returns its URL.
func writeKey(dir, name string, key *keys.Key, current keys.ID) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name+".json")
	err := keys.UpdateFile(path, func(s *keys.Set) error {
		s.Current, s.Keys = current, []*keys.Key{key}
		return nil
	})
	return "file://" + filepath.ToSlash(path), err
}

func (f *Fleet) processes() []*Process { return append([]*Process{f.Router}, f.Bots...) }

// Stop ends all programs in order: the router first, so that nothing new comes.
func (f *Fleet) Stop(ctx context.Context) error {
	var errs []error
	for _, p := range f.processes() {
		errs = append(errs, p.Stop(ctx))
	}
	return errors.Join(errs...)
}

// Close kills what still runs.
func (f *Fleet) Close() {
	for _, p := range f.processes() {
		p.Kill()
	}
	f.http.CloseIdleConnections()
}

// Post delivers a webhook to the router.
func (f *Fleet) Post(ctx context.Context, h *hooks.Hook) (hooks.Answer, error) {
	return hooks.Post(ctx, f.http, f.Router.URL("webhooks")+router.Path, f.Secret, h)
}

// maxScrape bounds what is read of /metrics.
const maxScrape = 4 << 20

// Scrape returns what a process says at /metrics.
func (f *Fleet) Scrape(ctx context.Context, p *Process) (text string, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL("admin")+"/metrics", nil)
	if err != nil {
		return "", err
	}
	r, err := f.http.Do(q)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Body.Close()) }()
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("fleet: /metrics of %s answers %s", p.Name, r.Status)
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxScrape))
	return string(b), err
}

// report takes in a line of a bot's standard output.
func (f *Fleet) report(line []byte) {
	var t consumer.Task
	err := json.Unmarshal(line, &t)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.bad = fmt.Errorf("fleet: a bot said what is no task: %w", err)
	} else {
		f.tasks = append(f.tasks, t)
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// wake has Wait look again.
func (f *Fleet) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.changed)
	f.changed = make(chan struct{})
}

// Fell returns an error if a program was ready and has ended by itself since.
func (f *Fleet) Fell() error {
	var errs []error
	for _, p := range f.processes() {
		errs = append(errs, p.Fell())
	}
	return errors.Join(errs...)
}

// State says of each program whether it runs, with the last lines of its log.
func (f *Fleet) State() string {
	var text strings.Builder
	for _, p := range f.processes() {
		text.WriteString(p.state())
	}
	return text.String()
}

// Tasks returns what the bots did so far, repeats included.
func (f *Fleet) Tasks() []consumer.Task {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.tasks)
}

// Wait waits until enough says that the tasks so far are enough. It fails when ctx ends, or a
// program has ended by itself, and says then what all programs do.
func (f *Fleet) Wait(ctx context.Context, enough func([]consumer.Task) bool) error {
	for {
		f.mu.Lock()
		tasks, changed, bad := slices.Clone(f.tasks), f.changed, f.bad
		f.mu.Unlock()
		switch {
		case bad != nil:
			return bad
		case enough(tasks):
			return nil
		}
		if err := f.Fell(); err != nil {
			return fmt.Errorf("fleet: after %d tasks: %w\n%s", len(tasks), err, f.State())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("fleet: after %d tasks: %w\n%s", len(tasks), ctx.Err(), f.State())
		}
	}
}

// lockedWriter is for lines of several processes.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
