package sqlitequeue_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// written makes a closed file with 50 messages.
func written(t *testing.T) (path string, content []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "q.db")
	f := open(t, path, nil)
	for n := range 50 {
		if err := f.send(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.broker.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, content
}

func TestNoDatabase(t *testing.T) {
	_, content := written(t)
	for name, content := range map[string][]byte{
		"text":          []byte("this is no database, but it is long enough to be mistaken for one: " + string(make([]byte, 4096))),
		"short":         []byte("short"),
		"first page":    append(bytes.Repeat([]byte{0xaa}, 4096), content[4096:]...),
		"header's end":  append(append(bytes.Clone(content[:16]), bytes.Repeat([]byte{0xff}, 84)...), content[100:]...),
		"only its head": content[:100],
	} {
		path := filepath.Join(t.TempDir(), "q.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := sqlitequeue.Open(t.Context(), path, nil)
		wantKind(t, name, err, driver.Corrupt)
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(content, after) {
			t.Errorf("%s: Open changed the file (%v)", name, err)
		}
	}
}

// TestDamage overwrites pages. Whatever is hit, calls answer or fail with
// driver.Corrupt, and Check finds what a call has found.
func TestDamage(t *testing.T) {
	t.Parallel()
	_, content := written(t)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // G404: a test that repeats
	found := 0
	const rounds = 40 / scale
	for round := range rounds {
		damaged := bytes.Clone(content)
		at := 4096 * (1 + random.IntN(len(content)/4096-1))
		for i := range 4096 {
			damaged[at+i] = byte(random.Uint32())
		}
		path := filepath.Join(t.TempDir(), "q.db")
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := sqlitequeue.Open(t.Context(), path, &sqlitequeue.Options{Synchronous: sqlitequeue.Normal})
		if err != nil {
			wantKind(t, "Open", err, driver.Corrupt)
			found++
			continue
		}
		check := b.Check(t.Context())
		q, err := b.Open(t.Context(), "q", nil)
		for err == nil {
			var got []*driver.Delivery
			if got, err = q.Receive(t.Context(), 10, 0); len(got) == 0 {
				break
			}
			for _, d := range got {
				if err == nil {
					err = q.Settle(t.Context(), []driver.Settlement{{Delivery: d, Kind: driver.Complete}})[0]
				}
			}
		}
		if err != nil {
			found++
			if driver.KindOf(err) != driver.Corrupt {
				t.Errorf("round %d: %v (kind %d), want driver.Corrupt", round, err, driver.KindOf(err))
			}
			if check == nil {
				t.Errorf("round %d: Check found nothing, and a call %v", round, err)
			}
		}
		_ = b.Close(t.Context())
	}
	if found < 2 {
		t.Errorf("%d of %d rounds met the damage", found, rounds)
	}
	t.Logf("%d of %d rounds met the damage, the others hit a body", found, rounds)
}

func TestSchemaAltered(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{
		"DROP TABLE messages", "DROP TABLE contents", "DROP INDEX messages_ready", "ALTER TABLE messages RENAME COLUMN due TO d", "DROP TABLE counts",
	} {
		path, _ := written(t)
		execute(t, attack(t, path), statement)
		f, err := sqlitequeue.Open(t.Context(), path, nil)
		if err != nil {
			wantKind(t, statement, err, driver.Corrupt)
			continue
		}
		q, err := f.Open(t.Context(), "q", nil)
		if err == nil {
			_, err = q.Receive(t.Context(), 10, 0)
		}
		if err == nil {
			err = q.Send(t.Context(), []*driver.Message{message(1)})[0].Err
		}
		wantKind(t, statement, err, driver.Corrupt)
		if err := errors.Join(f.Close(t.Context())); err != nil && driver.KindOf(err) != driver.Corrupt {
			t.Errorf("%s: Close: %v", statement, err)
		}
	}
}
