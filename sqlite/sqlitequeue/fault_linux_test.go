package sqlitequeue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// crampedRole mounts a file system of 80 MiB over a folder that only this process
// sees, and reports what happens when it is full.
func crampedRole(_ io.Reader, out io.Writer, args []string) error {
	dir := args[0]
	// Many systems share mounts between namespaces: the test's folder could not be removed.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=80m"); err != nil {
		return fmt.Errorf("mounting tmpfs: %w", err)
	}
	report, err := cramped(dir)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(report)
}

// fullDisk is what crampedRole reports.
type fullDisk struct {
	Sent, Received, Lost int
	WhileFull            int // received and settled while the disk was full
	SendError            string
	SendKind             driver.Kind
	ReceiveError         string // of receiving or settling
	Again                string // of a Send when there is room again
	Check                string
}

// crampedLock outlasts the stalls of a machine under load. What was held is given back by Close.
const crampedLock = 5 * time.Minute

func cramped(dir string) (r fullDisk, err error) {
	ctx := context.Background()
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 40<<20), 0o600); err != nil {
		return r, err
	}
	b, err := sqlitequeue.Open(ctx, filepath.Join(dir, "q.db"), nil)
	if err != nil {
		return r, err
	}
	q, err := b.Open(ctx, "q", &driver.QueueOptions{Lock: crampedLock})
	if err != nil {
		return r, err
	}
	sent := make(map[string]bool)
	for n := 0; ; n++ {
		m := &driver.Message{ID: fmt.Sprint(n), Body: make([]byte, 100<<10)}
		if err := q.Send(ctx, []*driver.Message{m})[0].Err; err != nil {
			r.SendError, r.SendKind = err.Error(), driver.KindOf(err)
			break
		}
		sent[m.ID] = true
	}
	r.Sent = len(sent)
	// A claim and a completion need room in the log, too, which sends have left.
	for range r.Sent / 2 {
		d, err := q.Receive(ctx, 1, 0)
		if err == nil {
			err = q.Settle(ctx, []driver.Settlement{{Delivery: d[0], Kind: driver.Complete}})[0]
		}
		if err != nil {
			r.ReceiveError = err.Error()
			break
		}
		delete(sent, d[0].ID)
		r.WhileFull++
	}
	if err := q.Close(ctx); err != nil && driver.KindOf(err) != driver.Full {
		return r, err
	}
	// Restart, after an operator made room.
	if err := b.Close(ctx); err != nil {
		return r, fmt.Errorf("Close: %w", err)
	}
	if err := os.Remove(filler); err != nil {
		return r, err
	}
	if b, err = sqlitequeue.Open(ctx, filepath.Join(dir, "q.db"), nil); err != nil {
		return r, err
	}
	if q, err = b.Open(ctx, "q", &driver.QueueOptions{Lock: crampedLock}); err != nil {
		return r, err
	}
	if err := q.Send(ctx, []*driver.Message{message(-1)})[0].Err; err != nil {
		r.Again = err.Error()
	}
	for {
		got, err := q.Receive(ctx, 10, 0)
		if err != nil {
			return r, fmt.Errorf("Receive after %+v: %w", r, err)
		}
		if len(got) == 0 {
			break
		}
		for _, d := range got {
			delete(sent, d.ID)
			r.Received++
			if err := q.Settle(ctx, []driver.Settlement{{Delivery: d, Kind: driver.Complete}})[0]; err != nil && driver.KindOf(err) != driver.LockLost {
				return r, err
			}
		}
	}
	r.Lost = len(sent)
	if err := b.Check(ctx); err != nil {
		r.Check = err.Error()
	}
	return r, b.Close(ctx)
}

// TestFullDisk fills a disk for real.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	cmd, err := command("cramped", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.Output()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this system does not allow mount namespaces; TestFullFile covers the same error")
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	var r fullDisk
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if r.SendKind != driver.Full || r.Sent < 100 {
		t.Errorf("Send to a full disk after %d messages: %s (kind %d), want driver.Full", r.Sent, r.SendError, r.SendKind)
	}
	if r.ReceiveError != "" || r.WhileFull != r.Sent/2 {
		t.Errorf("%d of %d messages were received and completed on a full disk: %s", r.WhileFull, r.Sent/2, r.ReceiveError)
	}
	if r.Lost != 0 || r.Again != "" || r.Check != "" {
		t.Errorf("%d confirmed messages are lost; Send when there is room: %q; Check: %q", r.Lost, r.Again, r.Check)
	}
}

// openerRole opens a file and reports the error.
func openerRole(_ io.Reader, out io.Writer, args []string) error {
	b, err := sqlitequeue.Open(context.Background(), args[0], nil)
	if err == nil {
		return errors.Join(fmt.Errorf("opened as %d", os.Geteuid()), b.Close(context.Background()))
	}
	return json.NewEncoder(out).Encode(toWire(err))
}

// TestReadOnly opens files that may only be read, as a user other than root.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	path, _ := written(t)
	dir := filepath.Dir(path)
	// The folders of a test are closed to others.
	for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ file, dir os.FileMode }{
		"file":   {0o444, 0o777},
		"folder": {0o666, 0o555},
		"both":   {0o444, 0o555},
		"secret": {0o000, 0o777},
		"closed": {0o666, 0o000},
	} {
		if err := errors.Join(os.Chmod(path, c.file), os.Chmod(dir, c.dir)); err != nil {
			t.Fatal(err)
		}
		cmd, err := command("opener", path)
		if err != nil {
			t.Fatal(err)
		}
		// Not by its path: the folder of the binary may be closed, too.
		cmd.Path = "/proc/self/exe"
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		cmd.Dir = "/"
		out, err := cmd.Output()
		if err != nil {
			var exit *exec.ExitError
			errors.As(err, &exit)
			t.Fatalf("%s: %v: %s", name, err, exit.Stderr)
		}
		var w wireError
		if err := json.Unmarshal(out, &w); err != nil {
			t.Fatal(err)
		}
		wantKind(t, name, w.error(), driver.Permission)
	}
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chmod(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if ids := open(t, path, nil).drain(); len(ids) != 50 {
		t.Errorf("%d of 50 messages are there", len(ids))
	}
}

func init() {
	roles["cramped"] = crampedRole
	roles["opener"] = openerRole
}
