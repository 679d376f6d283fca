package connect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
)

func sqlite(path string) string { return "sqlite://" + filepath.ToSlash(path) }

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), Config{
		Broker:      sqlite(filepath.Join(dir, "queue.db")),
		Keys:        "file://" + filepath.ToSlash(keyFile(t, "k1")),
		ReplayStore: sqlite(filepath.Join(dir, "nonces.db")),
	})
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, s.Broker, "q")
	now := time.Now()
	claims, err := s.ReplayStore.Begin(t.Context(), "g", []replay.Request{{
		ID: replay.Identity{Stream: [16]byte{1}, Sequence: 1}, Token: replay.NewToken(), Lease: time.Minute,
		SealedAt: now, FreshUntil: now.Add(time.Hour), Now: now, RetryWindow: time.Hour, MaxMessageAge: time.Hour,
	}})
	if err != nil || len(claims) != 1 || claims[0].Err != nil {
		t.Errorf("Begin = %+v, %v; want one claim", claims, err)
	}
	if err := errors.Join(s.Close(context.Background()), s.Close(context.Background())); err != nil {
		t.Errorf("close, twice: %v", err)
	}
	// Without keys and a replay store both are nil, so that options take them as none.
	if s, err = Open(t.Context(), Config{Broker: "mem://"}); err != nil || s.Keys != nil || s.ReplayStore != nil {
		t.Fatalf("%+v, %v; want neither keys nor a store", s, err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestOpenFails: what was opened before the failure is closed again.
func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	queue := sqlite(filepath.Join(dir, "queue.db"))
	for name, c := range map[string]Config{
		"no broker":   {},
		"bad broker":  {Broker: "nosuch://"},
		"bad keys":    {Broker: queue, Keys: "nosuch://"},
		"bad nonces":  {Broker: queue, ReplayStore: "nosuch://"},
		"mem nonces?": {Broker: queue, ReplayStore: "mem://host"},
		"same file":   {Broker: queue, ReplayStore: queue},
	} {
		if s, err := Open(t.Context(), c); err == nil || s != nil {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	// A handle that was left open would keep this from working on some systems,
	// and a lock from working on all.
	p, err := OpenBroker(t.Context(), queue)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, p, "q")
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestReach(t *testing.T) {
	dir := t.TempDir()
	queue := filepath.Join(dir, "queue.db")
	check := func(name, replayStore string, within bool) {
		t.Helper()
		if err := CheckReach(sqlite(queue), replayStore); errors.Is(err, ErrWithinReach) != within {
			t.Errorf("%s: %v", name, err)
		}
	}
	check("the file, before it is there", sqlite(queue), true)
	check("by another spelling", "sqlite://"+filepath.ToSlash(dir)+"/x/../queue.db", true)
	check("with parameters", sqlite(queue)+"?synchronous=normal", true)
	check("its log", sqlite(queue+"-wal"), true)
	check("another file", sqlite(filepath.Join(dir, "nonces.db")), false)
	check("memory", "mem://", false)
	check("none", "", false)

	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(queue, link); err != nil {
		t.Fatal(err)
	}
	check("a link to what is not there yet", sqlite(link), true)
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "folder")
	if err := os.Symlink(dir, folder); err != nil {
		t.Fatal(err)
	}
	check("through a linked folder", sqlite(filepath.Join(folder, "queue.db")), true)
	for _, pair := range [][2]string{{"a", "b"}, {"b", "a"}} {
		if err := os.Symlink(filepath.Join(dir, pair[0]), filepath.Join(dir, pair[1])); err != nil {
			t.Fatal(err)
		}
	}
	check("links in a circle", sqlite(filepath.Join(dir, "a")), false)

	p, err := OpenBroker(t.Context(), sqlite(queue))
	if err != nil {
		t.Fatal(err)
	}
	hard := filepath.Join(dir, "hard.db")
	if err := os.Link(queue, hard); err != nil {
		t.Fatal(err)
	}
	check("a hard link", sqlite(hard), true)
	check("the file, now that it is there", sqlite(link), true)

	// What the names do not show, the file does: a copy of a queue is no replay store.
	if err := p.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(queue)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "copy.db")
	if err := os.WriteFile(other, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReplayStore(t.Context(), sqlite(other)); !errors.Is(err, ErrWithinReach) {
		t.Errorf("a queue's file as a replay store: %v", err)
	}
}

func TestOpenReplayStore(t *testing.T) {
	dir := t.TempDir()
	for _, url := range []string{"mem://", sqlite(filepath.Join(dir, "n.db")), sqlite(filepath.Join(dir, "m.db")) + "?synchronous=normal"} {
		n, err := OpenReplayStore(t.Context(), url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if err := n.Probe(t.Context(), "g"); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if err := errors.Join(n.Close(t.Context()), n.Close(t.Context())); err != nil {
			t.Errorf("%s: close: %v", url, err)
		}
	}
	for _, url := range []string{"", "nosuch://", "mem://x", "mem://?x=1", "sqlite://", "sqlite:///x?y=1", "sqlite:///no/such/folder/n.db", "mem://%zz"} {
		if n, err := OpenReplayStore(t.Context(), url); err == nil || n != nil {
			t.Errorf("%q: %v, %v", url, n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenReplayStore(ctx, "mem://"); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "",
		"mem://":                                "mem://",
		"sqlite:///var/q.db?synchronous=normal": "sqlite:///var/q.db?synchronous=normal",
		"sqs://eu-west-1/?endpoint=http://127.0.0.1:9324": "sqs://eu-west-1/?endpoint=http://127.0.0.1:9324",
		"sqs://eu-west-1/?endpoint=http://u:p@host/":      "sqs://eu-west-1/?endpoint=xxxxx",
		"sqs://key:s3cret@eu-west-1/":                     "sqs://xxxxx@eu-west-1/",
		"sb:///?connection=NAME":                          "sb:///?connection=NAME",
		"sb:///?connection=Endpoint;s3cret":               "sb:///",
		"sb://n/?password=s3cret":                         "sb://n/?password=xxxxx",
		"sb://n/#s3cret":                                  "sb://n/",
		"Endpoint=sb://n/;SharedAccessKey=s3cret":         "Endpoint=(not shown)",
		"k1=s3cret":        "(not shown)",
		"k1:s3cret":        "(not shown)",
		"unknown://s3cret": "(not shown)",
		"env://BOT_KEYS":   "env://BOT_KEYS",
	} {
		if got := Redact(in); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestSchemes: every scheme that is listed is known to its function.
func TestSchemes(t *testing.T) {
	for what, list := range map[string][]string{"broker": BrokerSchemes(), "keys": KeySchemes(), "replay store": ReplayStoreSchemes()} {
		for _, scheme := range list {
			var err error
			url := scheme + "://?no_such_parameter=1"
			switch what {
			case "broker":
				_, err = OpenBroker(t.Context(), url)
			case "keys":
				_, err = OpenKeys(t.Context(), url)
			default:
				_, err = OpenReplayStore(t.Context(), url)
			}
			if err == nil || errors.Is(err, ErrUnknownScheme) {
				t.Errorf("%s %s: %v", what, scheme, err)
			}
		}
	}
}
