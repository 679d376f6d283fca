package connect

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/postgres"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// roundTrip sends a message through a queue and receives it.
func roundTrip(t *testing.T, p driver.Broker, queue string) {
	t.Helper()
	ctx := t.Context()
	q, err := p.Open(ctx, queue, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := q.Send(ctx, []*driver.Message{{ID: "m", Body: []byte("body")}}); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	d, err := q.Receive(ctx, 1, time.Minute)
	if err != nil || len(d) != 1 || string(d[0].Body) != "body" {
		t.Fatalf("received %d messages, %v", len(d), err)
	}
	if err := q.Settle(ctx, []driver.Settlement{{Delivery: d[0], Kind: driver.Complete}})[0]; err != nil {
		t.Fatal(err)
	}
}

func TestOpenQueue(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	s, err := sbemulator.Start(&sbemulator.Options{AutoCreate: &sbemulator.QueueOptions{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	t.Setenv("THE_CONNECTION", s.ConnectionString())
	t.Chdir(t.TempDir())
	for _, url := range []string{
		"mem://",
		"mem:",
		"mem://?lock=30s&max_deliveries=3&retention=1h",
		"sqlite://" + dir + "/a.db",
		"SQLITE://" + dir + "/b.db",
		"sqlite://localhost" + dir + "/c.db",
		"sqlite://" + dir + "/d%20e.db?synchronous=normal&lock=1s&max_deliveries=2&retention=24h&must_exist=false",
		"sqlite:relative.db",
		"sb:///?connection=THE_CONNECTION",
		"sb:///?connection=THE_CONNECTION&lock=30s&max_deliveries=5&dedup=false&partitioned=true",
		s.ConnectionString(),
	} {
		t.Run(Redact(url), func(t *testing.T) {
			p, err := OpenBroker(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, p, "orders")
			if err := p.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	for _, path := range []string{"relative.db", dir + "/d e.db"} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestQueueParameters(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	for _, base := range []string{"mem://", "sqlite://" + dir + "/a.db"} {
		p, err := OpenBroker(t.Context(), base+"?lock=7s&max_deliveries=3&retention=90m")
		if err != nil {
			t.Fatal(err)
		}
		q, err := p.Open(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		if c := q.Capabilities(); c.Lock != 7*time.Second || c.MaxDeliveries != 3 || c.Retention != 90*time.Minute {
			t.Errorf("%s: lock %s, %d deliveries, retention %s", base, c.Lock, c.MaxDeliveries, c.Retention)
		}
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestDedupWindow(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	for _, base := range []string{"mem://", "sqlite://" + dir + "/a.db"} {
		p, err := OpenBroker(t.Context(), base+"?dedup_window=1h")
		if err != nil {
			t.Fatal(err)
		}
		q, err := p.Open(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		if c := q.Capabilities(); c.Dedup != driver.Native {
			t.Errorf("%s: Dedup is %v", base, c.Dedup)
		}
		for range 2 {
			if r := q.Send(t.Context(), []*driver.Message{{ID: "m", DedupID: "d", Body: []byte("body")}}); r[0].Err != nil {
				t.Fatal(r[0].Err)
			}
		}
		if s, err := q.Stats(t.Context()); err != nil || s.Ready != 1 {
			t.Errorf("%s: %d messages (%v), want the repeat dropped", base, s.Ready, err)
		}
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestMustExist(t *testing.T) {
	url := "sqlite://" + filepath.ToSlash(filepath.Join(t.TempDir(), "a.db"))
	if _, err := OpenBroker(t.Context(), url+"?must_exist=true"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	p, err := OpenBroker(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, p, "there")
	if err := p.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if p, err = OpenBroker(t.Context(), url+"?must_exist=true"); err != nil {
		t.Fatal(err)
	}
	defer p.Close(context.Background()) //nolint:errcheck // the file goes with the test
	if _, err := p.Open(t.Context(), "missing", nil); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("no queue: %v", err)
	}
	roundTrip(t, p, "there")
}

// TestBadQueueURL: each is refused with what is wrong, and no error repeats what
// could be a secret.
func TestBadQueueURL(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"", "mem://, postgres://, sb://, sqlite://, sqs://"},
		{"s3cret", "this is not a URL"},
		{"kafka://s3cret/x", `unknown scheme "kafka"; use one of mem://, postgres://, sb://, sqlite://, sqs://`},
		{"s3cret:s3cret", "unknown scheme; use one of"},
		{"mem://s3cret", "neither host nor path"},
		{"mem://?s3cret=1", "unknown parameter"},
		{"mem://?lock=s3cret", "parameter lock is not a duration"},
		{"mem://?lock=1s&lock=2s", "given 2 times"},
		{"mem://?max_deliveries=s3cret", "not a number"},
		{"mem://?max_deliveries=0", "leave it out for the default"},
		{"mem://?lock=", "parameter lock is empty"},
		{"sqlite:///x.db?synchronous=", "parameter synchronous is empty"},
		{"sqlite:folder/", "no file is named"},
		{"sb:///?connection=", "parameter connection is empty"},
		{"sb:///?connection=Endpoint%3Dsb%3A%2F%2Fs3cret%2F%3BSharedAccessKey%3Ds3cret", "not the name of an environment variable"},
		{"mem://%zz", "does not parse"},
		{"sqlite://", "no file is named"},
		{"sqlite:///folder/", "no file is named"},
		{"sqlite://s3cret/x.db", "three slashes"},
		{"sqlite://user:s3cret@localhost/x.db", "no user"},
		{"sqlite:///x.db#s3cret", "fragment"},
		{"sqlite:///x.db?synchronous=s3cret", "one of full, normal"},
		{"sqlite:///x.db?unknown=s3cret", `unknown parameter "unknown"; known: dedup_window, lock, max_deliveries, must_exist, retention, synchronous`},
		{"sqs://s3cret@eu-west-1/", "credentials"},
		{"sb://", "one of the two"},
		{"sb://namespace/?connection=X", "one of the two"},
		{"sb://name:s3cret@namespace/", "more than a namespace"},
		{"sb:///?connection=NOT_SET_ANYWHERE", `"NOT_SET_ANYWHERE", which the URL names, is empty`},
		{"Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey", "connection string is not valid"},
		{"Endpoint=sb://x/;SharedAccessKey=s3cret", "connection string is not valid"},
	} {
		p, err := OpenBroker(t.Context(), c.url)
		if err == nil {
			t.Errorf("%q opened", c.url)
			_ = p.Close(context.Background())
			continue
		}
		if p != nil {
			t.Errorf("%q: a provider beside the error", c.url)
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.url, err, c.want)
		}
		if strings.Contains(strings.ReplaceAll(err.Error(), `unknown parameter "s3cret"`, ""), "s3cret") {
			t.Errorf("%q: the error shows it: %v", c.url, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenBroker(ctx, "mem://"); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

// TestNoNilInterface: an error of a driver comes without a provider, not with a
// nil pointer in one.
func TestNoNilInterface(t *testing.T) {
	p, err := OpenBroker(t.Context(), "sqlite:///no/such/folder/x.db")
	if err == nil || p != nil {
		t.Errorf("broker %v, %v; want an error alone", p, err)
	}
}

// TestCloudURLs: what can be seen without the cloud.
func TestCloudURLs(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	p, err := OpenBroker(t.Context(), "sqs://eu-west-1/?endpoint=http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
	p, err = OpenBroker(t.Context(), "sb://example/")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestPostgres opens a broker in PostgreSQL, and refuses a password in the URL.
func TestPostgres(t *testing.T) {
	base := postgres.Shared(t).URL("postgres", "postgres")
	for _, url := range []string{base, strings.Replace(base, "postgres://", "postgresql://", 1) + "?schema=other&pooled=true"} {
		b, err := OpenBroker(t.Context(), url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		q, err := b.Open(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		if r := q.Send(t.Context(), []*driver.Message{{ID: "1"}}); r[0].Err != nil {
			t.Error(r[0].Err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := OpenBroker(t.Context(), "postgres://u:s3cret@127.0.0.1/db"); err == nil || !strings.Contains(err.Error(), "PGPASSWORD") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a password in the URL: %v; want advice that names PGPASSWORD", err)
	}
	for url, want := range map[string]string{
		"postgres://u:s3cret@h/db?schema=x&sslmode=verify-full": "postgres://xxxxx@h/db?schema=x&sslmode=verify-full",
		"postgresql://h/db?sslpassword=s3cret":                  "postgresql://h/db?sslpassword=xxxxx",
	} {
		if got := Redact(url); got != want {
			t.Errorf("Redact: %s, want %s", got, want)
		}
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("12") // tests mostly wait
	}
	code := m.Run()
	postgres.StopShared()
	os.Exit(code)
}
