package webhooks_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/testbed/webhooks"
)

// header is that of a message as the example's router sends it: a sender key and one bound
// attribute.
var header = envelope.Header{
	KeyID: "task-tactician-1", Sender: "webhook-router", Origin: "task-tactician", Sequence: 1, Bound: []string{"github-event"},
}

// bodies returns the sizes of the webhooks, ascending.
func bodies(t *testing.T) (sizes []int) {
	t.Helper()
	dir, err := webhooks.Folder(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d webhooks, %v", len(files), err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, int(info.Size()))
	}
	slices.Sort(sizes)
	return sizes
}

// overheadRow is a line of the table in docs/sizing.md: what all bodies together become.
func overheadRow(name string, sizes []int, p envelope.Padding, base64Coded bool) string {
	plain, wire, largest := 0, 0, 0.0
	for _, n := range sizes {
		sealed := envelope.SealedSize(&header, p.Size(n))
		if base64Coded {
			sealed = base64.StdEncoding.EncodedLen(sealed)
		}
		plain += n
		wire += sealed
		largest = max(largest, float64(sealed-n)/float64(n))
	}
	return fmt.Sprintf("| %s | %d | %.1f %% | %.1f %% |", name, (wire-plain)/len(sizes), 100*float64(wire-plain)/float64(plain), 100*largest)
}

// The table of docs/sizing.md is what sealing adds to real webhooks.
func TestOverheadInDocs(t *testing.T) {
	sizes := bodies(t)
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "sizing.md"))
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range sizes {
		total += n
	}
	want := []string{fmt.Sprintf("%d webhooks of %d to %d bytes, %d on average", len(sizes), sizes[0], sizes[len(sizes)-1], total/len(sizes))}
	for _, c := range []struct {
		name    string
		padding envelope.Padding
	}{{"no padding", envelope.NoPadding}, {"`Padme`", envelope.Padme}, {"`PadTo(1024)`", envelope.PadTo(1024)}, {"`PadTo(16384)`", envelope.PadTo(16384)}} {
		want = append(want, overheadRow(c.name, sizes, c.padding, false), overheadRow(c.name+", in base64", sizes, c.padding, true))
	}
	for _, line := range want {
		if !strings.Contains(string(doc), line) {
			t.Errorf("docs/sizing.md lacks: %s", line)
		}
	}
	d := envelope.Header{KeyID: header.KeyID, Origin: header.Origin}
	if got := envelope.SealedSize(&d, 0); got != 175+len(d.KeyID)+len(d.Origin) {
		t.Errorf("%d bytes for nothing, want 175 and the names", got)
	}
}
