package cli_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/cmd/qrt/internal/cli"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
)

// run runs qrt over a replay store and returns its exit code and output.
func run(t *testing.T, nonces string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	args = append(args, "--nonces", nonces, "--broker", "mem://", "--keys", "env://NO_KEYS")
	code = cli.Run(t.Context(), args, cli.Streams{In: strings.NewReader(""), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

// arrive lets messages of a stream arrive at a store, each of which settles those before
// it, and be handled.
func arrive(t *testing.T, path, sender string, stream [16]byte, sequences ...uint64) {
	t.Helper()
	s, err := sqlitereplay.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, n := range sequences {
		r := replay.Request{
			ID: replay.Identity{Sender: sender, Stream: stream, Sequence: n}, Token: replay.NewToken(), SealedAt: now, Now: now, FreshUntil: now.Add(time.Hour),
			RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Hour, Settled: n - 1,
		}
		c, err := s.Begin(t.Context(), "orders", []replay.Request{r})
		if err != nil || c[0].Err != nil {
			t.Fatal(err, c)
		}
		f, err := s.Finish(t.Context(), "orders", []replay.Finish{{ID: r.ID, Token: r.Token, Kind: replay.Consumed}})
		if err != nil || f[0].Err != nil {
			t.Fatal(err, f)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAuditMissing(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "APPDATA", "LOCALAPPDATA"} {
		t.Setenv(name, home)
	}
	path := filepath.Join(home, "nonces.db")
	url := "sqlite://" + filepath.ToSlash(path)
	if code, _, errs := run(t, url, "audit", "missing", "orders"); code != 3 || !strings.Contains(errs, "there is no replay store") {
		t.Errorf("no file: exit %d, %s", code, errs)
	}
	var stream [16]byte
	binary.BigEndian.PutUint64(stream[:], uint64(time.Now().Add(-time.Hour).UnixMilli())<<16) //nolint:gosec // G115: far below
	stream[15] = 7
	arrive(t, path, "router", stream, 3, 4, 8)
	id := fmt.Sprintf("%x", stream)

	code, out, errs := run(t, url, "audit", "missing", "orders", "--json")
	var r struct {
		Missing []struct {
			Sender, Stream, Reported string
			First, Last              uint64
			Since                    time.Time
		}
	}
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	// The stream was opened before the store was made: it counts from the first seen.
	if len(r.Missing) != 1 || r.Missing[0].Sender != "router" || r.Missing[0].Stream != id || r.Missing[0].First != 5 || r.Missing[0].Last != 7 || time.Since(r.Missing[0].Since) > time.Minute {
		t.Errorf("missing %+v, want 5 to 7 of router", r.Missing)
	}
	if _, out, _ := run(t, url, "audit", "missing", "orders"); !strings.Contains(out, "router") || !strings.Contains(out, "5-7") {
		t.Errorf("the table lacks the range:\n%s", out)
	}
	if code, _, _ := run(t, url, "audit", "missing", "invoices"); code != 3 {
		t.Errorf("another group: exit %d, want 3", code)
	}

	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{2, "name the sender", []string{"--stream", id, "--range", "5"}},
		{2, "32 hexadecimal digits", []string{"--sender", "router", "--stream", "xyz", "--range", "5"}},
		{2, "name the messages", []string{"--sender", "router", "--stream", id}},
		{2, "is not a range", []string{"--sender", "router", "--stream", id, "--range", "7-5"}},
		{2, "settled up to 7 only", []string{"--sender", "router", "--stream", id, "--range", "5-8"}},
		{3, "no such stream", []string{"--sender", "other", "--stream", id, "--range", "5"}},
	} {
		code, _, errs := run(t, url, append([]string{"audit", "accept", "orders"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%q: exit %d, %s; want %d, %q", c.args, code, errs, c.code, c.want)
		}
	}
	accept := []string{"audit", "accept", "orders", "--sender", "router", "--stream", id, "--json"}
	if code, out, errs := run(t, url, append(accept, "--range", "5-6")...); code != 0 || !strings.Contains(out, `"accepted":2`) {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	if _, out, _ := run(t, url, "audit", "missing", "orders", "--json"); !strings.Contains(out, `"first":7,"last":7`) {
		t.Errorf("after 5 and 6 were accepted: %s", out)
	}
	if code, out, errs := run(t, url, append(accept, "--range", "7")...); code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	if code, _, errs := run(t, url, "audit", "missing", "orders"); code != 3 || !strings.Contains(errs, "no message") {
		t.Errorf("after all were accepted: exit %d, %s", code, errs)
	}
}

func TestNoncesStats(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "APPDATA", "LOCALAPPDATA"} {
		t.Setenv(name, home)
	}
	path := filepath.Join(home, "nonces.db")
	url := "sqlite://" + filepath.ToSlash(path)
	if code, _, errs := run(t, url, "nonces", "stats"); code != 3 || !strings.Contains(errs, "there is no replay store") {
		t.Errorf("no file: exit %d, %s", code, errs)
	}
	if code, _, errs := run(t, "mem://", "nonces", "stats"); code != 2 || !strings.Contains(errs, "in memory") {
		t.Errorf("mem: exit %d, %s", code, errs)
	}
	var stream [16]byte
	binary.BigEndian.PutUint64(stream[:], uint64(time.Now().UnixMilli())<<16) //nolint:gosec // G115: far below
	arrive(t, path, "router", stream, 1, 2, 4)
	code, out, errs := run(t, url+"?streams=4&group_streams=4", "nonces", "stats", "--json")
	var r struct {
		ID                       string
		Birth                    time.Time
		Change                   uint64
		Records, Streams, Recent struct{ Used, Bound int }
		Full                     float64
		Shared, Durable          bool
	}
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	if len(r.ID) != 32 || r.Birth.IsZero() || r.Change == 0 || r.Streams.Used != 1 || r.Streams.Bound != 4 || r.Recent.Used != 3 || r.Full != 0.25 || !r.Shared || !r.Durable {
		t.Errorf("report %+v, want what is used, a shared and durable store, and a quarter full", r)
	}
	if _, out, _ := run(t, url+"?streams=1", "nonces", "stats"); !strings.Contains(out, "100 % full") {
		t.Errorf("a full store:\n%s", out)
	}
}
