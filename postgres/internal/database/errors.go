package database

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/queue-runtime/queue/driver"
)

// sqlState is what an error of the server means (PostgreSQL, Appendix A). An entry of
// five characters is a state, one of two a class.
type sqlState struct {
	state  string
	kind   driver.Kind
	advice string // empty: the server's own words, which hold no payload
}

// sqlStates is searched from the start.
var sqlStates = []sqlState{
	{"53100", driver.Full, "the server's disk is full"},
	{"53300", driver.Unavailable, "the server has too many connections: lower max_conns or use a pooler"},
	{"53", driver.Unavailable, ""},
	{"08", driver.Unavailable, ""},
	{"28", driver.Permission, "the server refused the login: check role, password (PGPASSWORD or a passfile) and pg_hba.conf"},
	{"3D000", driver.NotFound, "there is no such database"},
	{"42501", driver.Permission, ""},
	{"25006", driver.Unavailable, "the server is a standby, or read-only"},
	{"25P02", driver.Invalid, "the transaction has failed before: roll it back"},
	{"25P03", driver.Unavailable, "the server ended a transaction that stood idle: this process was stopped for too long"},
	{"40", driver.Unavailable, "the transaction was rolled back and may be repeated"},
	{"55P03", driver.Unavailable, "a lock was not available in time"},
	{"57014", driver.Unavailable, "the server cancelled the request: it took too long"},
	{"57", driver.Unavailable, "the server shuts down or starts"},
	{"58", driver.Unavailable, "the server had an error of its system"},
	{"XX001", driver.Corrupt, "a table of the server is damaged"},
	{"XX002", driver.Corrupt, "an index of the server is damaged"},
	{"3F000", driver.Corrupt, "the schema was removed"},
	{"42P01", driver.Corrupt, "a table of the schema was removed"},
	{"42703", driver.Corrupt, "a column of the schema was removed"},
}

// Classify makes the error of a request a *driver.Error. Errors of ctx pass as they
// are.
func Classify(ctx context.Context, err error) error {
	var already *driver.Error
	var p *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &already):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &p):
		return stateError(p)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled): // of the request's own time-out
		return driver.Errorf(driver.Unavailable, "the server did not answer in time")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return driver.Errorf(driver.Unavailable, "the connection was closed")
	case errors.Is(err, pgx.ErrNoRows):
		return driver.Errorf(driver.Corrupt, "the server returned no row")
	}
	var operation *net.OpError
	if errors.As(err, &operation) {
		return &driver.Error{Kind: driver.Unavailable, Err: operation} // an address, and no credential
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) || pgconn.SafeToRetry(err) {
		return driver.Errorf(driver.Unavailable, "the server cannot be reached, or its certificate is not valid")
	}
	return driver.Errorf(driver.Unavailable, "the connection failed (%T)", err)
}

func stateError(p *pgconn.PgError) error {
	for _, s := range sqlStates {
		if p.Code != s.state && (len(s.state) != 2 || len(p.Code) < 2 || p.Code[:2] != s.state) {
			continue
		}
		if s.advice == "" {
			return driver.Errorf(s.kind, "%s (SQLSTATE %s)", p.Message, p.Code)
		}
		return driver.Errorf(s.kind, "%s (SQLSTATE %s)", s.advice, p.Code)
	}
	// The server's words may quote what was sent.
	return driver.Errorf(driver.Other, "the server refused the request (SQLSTATE %s)", p.Code)
}
