package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// doctorRun is one run of doctor.
type doctorRun struct {
	app     *app
	probe   string
	handler time.Duration // how long one takes, 0: not told
	role    string        // of this identity, empty means not told
	report  *doctorReport
	queue   string // that is looked at, empty means none
}

func (x *doctorRun) find(l level, check, advice, format string, args ...any) {
	x.report.add(finding{Check: check, Queue: x.queue, Level: l, Finding: fmt.Sprintf(format, args...), Advice: advice})
}

func (x *doctorRun) ok(check, format string, args ...any) {
	x.find(levelOK, check, "", format, args...)
}

// run looks at everything. Its error is of doctor itself; what is wrong is in
// the report.
func (x *doctorRun) run(ctx context.Context, queues []string) error {
	x.settings()
	given := queues
	if len(given) == 0 {
		given = x.app.settings.queueNames()
	}
	before := x.report.Errors
	x.keys(ctx, x.app.settings.keys, "keys")
	x.nonces(ctx)
	missing := x.report.Errors > before
	x.phase()
	c, err := x.app.connect(ctx, access{queues: given})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if missing {
			// It is that again, and no fault of the broker's.
			x.find(levelNote, "broker", "first correct the error above", "not checked: keys and replay store come first")
			return nil
		}
		x.find(levelError, "broker", x.brokerAdvice(err), "%v", err)
		return nil
	}
	err = x.broker(ctx, c, given)
	return errors.Join(err, c.close(ctx))
}

func (x *doctorRun) brokerAdvice(err error) string {
	switch {
	case errors.Is(err, driver.ErrPermission), errors.Is(err, os.ErrPermission):
		return "give this user or role access to it"
	case errors.Is(err, driver.ErrCorrupt):
		return "restore the file from a backup, or recover it with: sqlite3 FILE .recover"
	case errors.Is(err, connect.ErrUnknownScheme), errors.Is(err, connect.ErrWithinReach):
		return "see qrt help urls"
	case errors.Is(err, os.ErrNotExist):
		return "make the folder; qrt makes the file, not the folders above it"
	}
	return "check the URL, the network and the credentials"
}

// settings says where the configuration comes from.
func (x *doctorRun) settings() {
	s := &x.app.settings
	if s.file != "" {
		x.ok("settings", "configuration file %s", s.file)
		info, err := os.Stat(s.file)
		if err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 && strings.Contains(s.broker.value, "SharedAccessKey=") {
			x.find(levelError, "settings", "chmod 600 "+s.file, "the configuration file holds a secret and others can read it (mode %04o)", info.Mode().Perm())
		}
	}
	for _, f := range []struct {
		name string
		s    setting
	}{{"broker", s.broker}, {"keys", s.keys}, {"nonces", s.nonces}} {
		if f.s.value != "" {
			x.find(levelNote, "settings", "", "%s: %s (%s)", f.name, f.s.shown(), f.s.source)
		}
	}
	x.find(levelNote, "settings", "", "policy: %s (%s), max-age: %s (%s)", s.policy.value, s.policy.source, s.maxAge.value, s.maxAge.source)
}

// keys looks at one set of keys.
func (x *doctorRun) keys(ctx context.Context, s setting, check string) {
	if s.value == "" {
		x.find(levelWarning, check, "make some: qrt keys new", "there are no keys: messages are sent in plaintext, and sealed ones cannot be opened")
		return
	}
	p, err := x.app.openKeysAt(ctx, s)
	if err != nil {
		advice := "check the URL and the permissions"
		if errors.Is(err, keys.ErrInvalidKey) {
			advice = "the keys are there and not as they should be: the text says where"
		}
		x.find(levelError, check, advice, "%v", err)
		return
	}
	defer func() { _ = p.Close(ctx) }() // nothing was written
	list, err := listKeys(ctx, p)
	if err != nil {
		x.find(levelError, check, "check the permissions: receivers need to read every key, senders the current one", "%v", err)
		return
	}
	x.ok(check, "%s to open with", number(len(list.Keys), "no keys", "key"))
	if list.Current == "" {
		x.find(levelWarning, check, "qrt keys rotate makes one; receivers alone need none", "no key is current: nothing can be sealed")
		return
	}
	x.current(ctx, p, list.Current, check)
}

// soon is how long before a key's expiry doctor begins to warn.
const soon = 14 * 24 * time.Hour

// current looks at the key to seal with, and tries it.
func (x *doctorRun) current(ctx context.Context, p keys.Provider, id keys.ID, check string) {
	k, err := p.GetKey(ctx, id)
	if err != nil {
		x.find(levelError, check, "the current key must be readable", "%v", err)
		return
	}
	now := time.Now()
	const rotate = "rotate: qrt keys rotate"
	switch end := k.Expires(); {
	case k.Expired(now):
		x.find(levelError, check, rotate, "the current key %s expired %s: nothing can be sealed", id, relative(end, now))
		return
	case !end.IsZero() && end.Sub(now) < soon:
		x.find(levelWarning, check, rotate, "the current key %s expires %s", id, relative(end, now))
	}
	if made := k.Created(); !made.IsZero() && now.Sub(made) > oldKey {
		x.find(levelWarning, check, rotate, "the current key %s is %s old", id, old(now.Sub(made)))
	}
	if err := tryKey(k); err != nil {
		x.find(levelError, check, "", "sealing and opening with key %s: %v", id, err)
		return
	}
	x.ok(check, "key %s is current; sealed and opened a test message with it", id)
}

// tryKey seals and opens with a key, offline.
func tryKey(k *keys.Key) error {
	s, err := envelope.NewSealer(k, string(k.ID()), k.SenderID())
	if err != nil {
		return err
	}
	plain := []byte("doctor")
	sealed, err := s.SealApp(nil, &envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: probeQueue}, plain, nil)
	if err != nil {
		return err
	}
	m, err := envelope.Parse(sealed)
	if err != nil {
		return err
	}
	opened, err := envelope.NewOpener(nil).OpenApp(nil, &m, k, nil)
	if err == nil && !bytes.Equal(opened, plain) {
		err = errors.New("it opened to something else")
	}
	return err
}

// nonces checks the replay store.
func (x *doctorRun) nonces(ctx context.Context) {
	s := &x.app.settings
	const check = "nonces"
	if s.nonces.value == "" {
		x.find(levelNote, check, "", "no replay store: a broker can deliver a message again while it is fresh")
		return
	}
	if err := connect.CheckReach(s.broker.value, s.nonces.value); err != nil {
		x.find(levelError, check, "give it a file or server of its own", "%v", err)
		return
	}
	store, err := connect.OpenReplayStore(ctx, s.nonces.value)
	if err != nil {
		x.find(levelError, check, "receiving stops without it: check the URL and the permissions", "%v", err)
		return
	}
	defer func() { _ = store.Close(ctx) }() // what a probe writes is no record
	if err := store.Probe(ctx, probeQueue); err != nil {
		x.find(levelError, check, "receiving stops without it", "it takes no record: %v", err)
		return
	}
	stats, err := store.Stats(ctx)
	if err != nil {
		x.find(levelError, check, "receiving stops without it", "it does not say what it holds: %v", err)
		return
	}
	switch {
	case stats.Full() >= 0.8:
		x.find(levelWarning, check, "raise its bounds before it is full: receiving stops then", "the replay store is %.0f %% full: %d records, %d streams, %d intervals", 100*stats.Full(), stats.Records, stats.Streams, stats.Intervals)
	case projected(&stats, time.Now()) >= 1:
		x.find(levelWarning, check, "raise its bounds, or find out what grows: see docs/sizing.md", "the replay store will be full if it goes on as in the %s since it was made: %d records, %d streams", old(time.Since(stats.Stamp.Birth)), stats.Records, stats.Streams)
	case strings.HasPrefix(s.nonces.value, "mem:"):
		x.find(levelWarning, check, "use one that is durable and shared, such as sqlite:///path/nonces.db", "the replay store is in memory: it serves one process, and is lost when that ends")
	case store.TrustsDatabaseOperators():
		x.find(levelWarning, check, "give it a database of its own, unless its operators may replay messages", "the replay store's URL says trust_database_operators: with a broker in the same database its operators can remove the memory of what was handled")
	case neighbours(s.broker.value, s.nonces.value):
		x.find(levelWarning, check, "put it where the owner of the queue's file cannot write", "the replay store lies in the folder of the queue: an attacker who can write one can probably write the other")
	default:
		x.ok(check, "the replay store answers, and is not the broker's")
	}
}

// neighbours reports whether two URLs name files in one folder.
func neighbours(a, b string) bool {
	path := func(raw string) string {
		rest, ok := strings.CutPrefix(raw, "sqlite:")
		if !ok {
			return ""
		}
		rest, _, _ = strings.Cut(strings.TrimPrefix(rest, "//"), "?")
		return filepath.Dir(rest)
	}
	return path(a) != "" && path(a) == path(b)
}

// phase says which of the four configurations of docs/migration.md this is.
func (x *doctorRun) phase() {
	s := &x.app.settings
	production := s.environment.value == "production"
	const check, how = "migration", "see docs/migration.md"
	policy := s.plaintextPolicy()
	sealed := s.keys.value != ""
	for _, q := range s.queues {
		sealed = sealed || q.Keys != ""
	}
	switch {
	case !sealed && production:
		x.report.Phase = 2
		x.find(levelWarning, check, how, "phase 2 of 4: production, without encryption")
	case !sealed:
		x.report.Phase = 1
		x.find(levelNote, check, how, "phase 1 of 4: no encryption")
	case policy != queue.Reject:
		x.report.Phase = 3
		l := levelNote
		if production {
			l = levelWarning
		}
		x.find(l, check, "once no plaintext arrives any more, set policy = \"reject\" and a replay store: that is phase 4", "phase 3 of 4: senders seal, and receivers still take plaintext (%s)", policy)
	case s.nonces.value == "":
		x.report.Phase = 3
		x.find(levelWarning, check, "add a replay store (--nonces): then this is phase 4", "between phase 3 and 4: plaintext is rejected, and replays are not")
	default:
		x.report.Phase = 4
		x.ok(check, "phase 4 of 4: everything is sealed, plaintext and replays are rejected")
	}
}

// shownError is an error for a finding: one line.
func shownError(err error) string { return display.Safe(strings.ReplaceAll(err.Error(), "\n", "; ")) }
