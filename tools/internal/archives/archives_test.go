package archives

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Archives of equal files are equal, whatever the files' names, times and order.
func TestArchiveIsReproducible(t *testing.T) {
	day := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	for _, p := range []Platform{{"linux", "amd64"}, {"windows", "amd64"}} {
		a, b := t.TempDir(), t.TempDir()
		for i, dir := range []string{a, b} {
			one := write(t, filepath.Join(t.TempDir(), "one"), "1")
			two := write(t, filepath.Join(t.TempDir(), "two"), "2")
			if err := os.Chtimes(one, time.Time{}, day.Add(time.Duration(i)*time.Hour)); err != nil {
				t.Fatal(err)
			}
			entries := []entry{{"qrt", one, 0o755}, {"LICENSE", two, 0o644}}
			if i == 1 {
				entries[0], entries[1] = entries[1], entries[0]
			}
			if err := p.archive(filepath.Join(dir, "qrt_v0.1.0"), day.In(time.FixedZone("", i*3600)), entries); err != nil {
				t.Fatal(err)
			}
			if err := writeChecksums(dir); err != nil {
				t.Fatal(err)
			}
		}
		if err := equalFolders(a, b); err != nil {
			t.Errorf("%s: %v", p.OS, err)
		}
	}
}

func TestTarContent(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(t.TempDir(), "x"), "program")
	if err := (Platform{"linux", "arm64"}).archive(filepath.Join(dir, "qrt_v1"), time.Unix(1, 0), []entry{{"bin/qrt", file, 0o755}}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "qrt_v1.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	h, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil || h.Name != "qrt_v1/bin/qrt" || h.Mode != 0o755 || string(text) != "program" || h.Uid != 0 || h.Uname != "" {
		t.Errorf("got %+v with %q, error %v", h, text, err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("there is more: %v", err)
	}
}

func TestEqualFolders(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	if equalFolders(a, b) == nil {
		t.Error("two empty folders show nothing")
	}
	write(t, filepath.Join(a, "x"), "1")
	if equalFolders(a, b) == nil {
		t.Error("a file that only one build made is not found")
	}
	write(t, filepath.Join(b, "x"), "2")
	if equalFolders(a, b) == nil {
		t.Error("different bytes are not found")
	}
	write(t, filepath.Join(b, "x"), "1")
	if err := equalFolders(a, b); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(b, "x")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(b, "y"), "1")
	if err := equalFolders(a, b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another name is not found: %v", err)
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
