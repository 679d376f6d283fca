package sqlitereplay_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
)

// roleVariable makes the test binary run as claimer.
const roleVariable = "SQLITEREPLAY_TEST_CLAIMER"

func TestMain(m *testing.M) {
	if path := os.Getenv(roleVariable); path != "" {
		role := claimer
		if os.Getenv(workersVariable) != "" {
			role = workers
		}
		if err := role(path, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "claimer:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// claimer claims and consumes the envelopes 0 to n-1 for the line "n", and
// reports each it has won. Then it waits for the end of its input.
func claimer(path string, in io.Reader, out io.Writer) error {
	ctx := context.Background()
	s, err := sqlitereplay.Open(ctx, path, nil)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	orders := bufio.NewScanner(in)
	orders.Scan()
	n, err := strconv.Atoi(orders.Text())
	if err != nil {
		return err
	}
	for i := range n {
		r := request(i)
		_, err := claim(s, r)
		switch {
		case errors.Is(err, replay.ErrBusy), errors.Is(err, replay.ErrDuplicate):
			continue
		case err != nil:
			return err
		}
		if err := end(s, r, replay.Consumed); err != nil {
			return err
		}
		fmt.Fprintln(out, i)
	}
	fmt.Fprintln(out, "done")
	for orders.Scan() {
	}
	return nil // without Close, as after a crash
}

type claiming struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

func startClaimer(t *testing.T, path string, env ...string) *claiming {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &claiming{cmd: exec.Command(self)}
	c.cmd.Env = append(append(os.Environ(), roleVariable+"="+path), env...)
	c.cmd.Stderr = os.Stderr
	var out io.ReadCloser
	if c.in, err = c.cmd.StdinPipe(); err == nil {
		if out, err = c.cmd.StdoutPipe(); err == nil {
			err = c.cmd.Start()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	c.lines = bufio.NewScanner(out)
	if !c.lines.Scan() {
		t.Fatal("a claimer ended")
	}
	return c
}

// TestProcesses: of several processes that want the same envelopes, each is won
// by one, and what they consumed is known after they were killed.
func TestProcesses(t *testing.T) {
	const n = 60
	path := filepath.Join(t.TempDir(), "replay.db")
	all := make([]*claiming, 4)
	for i := range all {
		all[i] = startClaimer(t, path)
	}
	for _, c := range all {
		fmt.Fprintln(c.in, n)
	}
	won := make(map[string]int)
	for _, c := range all {
		for c.lines.Scan() && c.lines.Text() != "done" {
			won[c.lines.Text()]++
		}
		if err := c.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	}
	s := open(t, path, nil)
	for i := range n {
		if won[strconv.Itoa(i)] != 1 {
			t.Errorf("envelope %d was won %d times", i, won[strconv.Itoa(i)])
		}
		if _, err := claim(s, request(i)); !errors.Is(err, replay.ErrDuplicate) {
			t.Errorf("envelope %d after all: %v, want ErrDuplicate", i, err)
		}
	}
	if len(won) != n {
		t.Errorf("%d envelopes were won, want %d", len(won), n)
	}
}

// TestKill kills a claimer in the middle of its work, 10 times: what it said it
// had consumed is consumed.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "replay.db")
	said := make(map[int]bool)
	for round := range 10 {
		c := startClaimer(t, path)
		fmt.Fprintln(c.in, 10_000_000) // more than it can do until it is killed
		for range 2 + round%3 {
			if !c.lines.Scan() {
				t.Fatal("a claimer ended")
			}
			n, err := strconv.Atoi(strings.TrimSpace(c.lines.Text()))
			if err != nil {
				t.Fatal(err)
			}
			said[n] = true
		}
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for c.lines.Scan() {
			if n, err := strconv.Atoi(c.lines.Text()); err == nil {
				said[n] = true
			}
		}
	}
	s := open(t, path, nil)
	for n := range said {
		if _, err := claim(s, request(n)); !errors.Is(err, replay.ErrDuplicate) {
			t.Errorf("envelope %d was consumed: Begin answers %v", n, err)
		}
	}
	t.Logf("%d envelopes were consumed before a kill", len(said))
}
