package postgresqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/queue-runtime/queue/driver"
)

// TestClassify: each error is classified once, and none shows what was sent.
func TestClassify(t *testing.T) {
	state := func(code string) error {
		return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code, Message: "words", Detail: "s3cret"})
	}
	for _, c := range []struct {
		err  error
		kind driver.Kind
	}{
		{state("QR001"), driver.SessionLost},
		{state("QR002"), driver.NotFound},
		{state("53100"), driver.Full},
		{state("53300"), driver.Unavailable},
		{state("53200"), driver.Unavailable},
		{state("08006"), driver.Unavailable},
		{state("28P01"), driver.Permission},
		{state("42501"), driver.Permission},
		{state("25006"), driver.Unavailable},
		{state("40P01"), driver.Unavailable},
		{state("57P01"), driver.Unavailable},
		{state("57014"), driver.Unavailable},
		{state("XX001"), driver.Corrupt},
		{state("42883"), driver.Corrupt},
		{state("22021"), driver.Invalid},
		{state("54000"), driver.Invalid},
		{state("23514"), driver.Other},
		{state("x"), driver.Other},
		{io.ErrUnexpectedEOF, driver.Unavailable},
		{fmt.Errorf("timeout: %w", context.DeadlineExceeded), driver.Unavailable},
		{errors.New("s3cret"), driver.Unavailable},
		{&driver.Error{Kind: driver.Full}, driver.Full},
	} {
		err := classify(context.Background(), c.err)
		var d *driver.Error
		if !errors.As(err, &d) || d.Kind != c.kind || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v is classified as %v, want kind %v", c.err, err, &driver.Error{Kind: c.kind})
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := classify(ended, state("57014")); !errors.Is(err, context.Canceled) {
		t.Errorf("an error after the context ended: %v, want %v", err, context.Canceled)
	}
}
