package sqlitefile

import (
	"os"
	"path/filepath"
	"testing"
)

// TestNews: writes to the log are told while they are listened for.
func TestNews(t *testing.T) {
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}()
	write := func() {
		t.Helper()
		if _, err := log.WriteString("x"); err != nil {
			t.Fatal(err)
		}
	}
	n := openNews(log.Name())
	if n == nil {
		t.Fatal("there are no news on Linux")
	}
	defer n.close()
	write()
	for range 2 {
		if !n.listen(true) {
			t.Fatal("no news come")
		}
		write()
		<-n.written // hangs if they do not
		if n.listen(false) {
			t.Error("news come although nothing listens")
		}
	}
	if n.path += "-gone"; n.listen(true) {
		t.Error("news come of a file that does not exist")
	}
}

// TestNewsMissed: if commits are found of which no news came, they are not relied on.
func TestNewsMissed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	f, other := open(t, config(path)), open(t, config(path))
	w := watch{file: f, armed: true, news: openNews(path + "-wal")} // which nothing listens for
	for i := range missedMax {
		if w.silent {
			t.Errorf("given up after %d commits", i)
		}
		if err := other.Write(t.Context(), increment); err != nil {
			t.Fatal(err)
		}
		w.pause = newsMax
		w.look()
	}
	if !w.silent || w.armed || w.news != nil {
		t.Errorf("relied on after %d commits: %+v", missedMax, w)
	}
	w.look()
	if w.pause > pollMax {
		t.Errorf("without news the next look comes after %v, want at most %v", w.pause, pollMax)
	}
}
