package sqlitefile

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"
)

// endless is a statement that does not end by itself.
const endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

// A read ends with its context, whatever the file makes of the statement, and the
// connection is as good as before.
func TestReadIsInterrupted(t *testing.T) {
	f := open(t, config(filepath.Join(t.TempDir(), "f.db")))
	for name, read := range map[string]func(context.Context, func(*Conn) error) error{"Read": f.Read, "Snapshot": f.Snapshot} {
		for range f.config.Readers + 1 {
			ctx, cancel := context.WithCancel(t.Context())
			err := read(ctx, func(c *Conn) error {
				time.AfterFunc(20*time.Millisecond, cancel)
				_, err := c.Int(endless)
				return err
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s = %v, want context.Canceled", name, err)
			}
		}
		if n := f.text(t, "SELECT n FROM t"); n != "0" {
			t.Errorf("after that n is %s", n)
		}
		if err := f.Write(t.Context(), increment); err != nil {
			t.Errorf("Write: %v", err)
		}
		if err := f.Write(t.Context(), func(c *Conn) error { _, err := c.Exec("UPDATE t SET n = 0"); return err }); err != nil {
			t.Errorf("Write: %v", err)
		}
	}
}

// Close waits for no read.
func TestCloseInterruptsReads(t *testing.T) {
	f := open(t, config(filepath.Join(t.TempDir(), "f.db")))
	begun, read := make(chan struct{}), make(chan error)
	go func() {
		read <- f.Read(context.Background(), func(c *Conn) error {
			close(begun)
			_, err := c.Int(endless)
			return err
		})
	}()
	<-begun
	if err := f.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-read; !errors.Is(err, ErrClosed) {
		t.Errorf("Read = %v, want ErrClosed", err)
	}
}
