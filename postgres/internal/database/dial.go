package database

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/queue-runtime/queue/internal/dialing"
)

// Limit has the connections of c count for the process: to a server that cannot be reached
// all its pools together connect a few times a second at most, and so do those of one login
// that it refuses.
func Limit(c *pgxpool.Config) {
	before := c.BeforeConnect // of ParseURL
	c.BeforeConnect = func(ctx context.Context, cc *pgx.ConnConfig) error {
		if before != nil {
			if err := before(ctx, cc); err != nil {
				return err
			}
		}
		return beginConnect(ctx, cc)
	}
}

// Connect opens a connection like those of a pool of c, to which Limit was applied, and
// counts it too.
func Connect(ctx context.Context, c *pgxpool.Config) (*pgx.Conn, error) {
	cc := c.ConnConfig.Copy()
	if err := c.BeforeConnect(ctx, cc); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, cc)
}

// beginConnect waits until cc may be connected with, and has it tell what became of it. The
// wait is bounded as connecting is: a pool connects on when its caller has left.
func beginConnect(ctx context.Context, cc *pgx.ConnConfig) error {
	waiting, cancel := context.WithTimeout(ctx, cc.ConnectTimeout)
	defer cancel()
	address := fmt.Sprintf("postgres %s:%d", cc.Host, cc.Port)
	login, err := dialing.To(fmt.Sprintf("%s %q %q", address, cc.User, cc.Database)).Begin(waiting)
	if err != nil {
		return err
	}
	server, err := dialing.To(address).Begin(waiting)
	if err != nil {
		login.End()
		return err
	}
	cc.Tracer = &attempt{login: login, server: server, began: time.Now()}
	return nil
}

// attempt tells the limiters of a connection what became of it.
type attempt struct {
	login, server *dialing.Attempt
	began         time.Time
}

// longConnect is how long a server that is there never takes, as a rule.
const longConnect = time.Second

// TraceConnectStart implements [pgx.ConnectTracer].
func (a *attempt) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}

// TraceConnectEnd implements [pgx.ConnectTracer].
func (a *attempt) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	switch {
	case data.Err == nil:
		a.login.Reached()
		a.server.Reached()
	case refused(data.Err):
		a.login.Failed(data.Err)
		a.server.Reached()
	case ctx.Err() == nil || time.Since(a.began) >= longConnect: // otherwise the caller left
		a.server.Failed(data.Err)
	}
	a.login.End()
	a.server.End()
}

// refused reports whether the server is there and does not let this login in.
func refused(err error) bool {
	var p *pgconn.PgError
	return errors.As(err, &p) && (p.Code[:min(2, len(p.Code))] == "28" || p.Code == "3D000" || p.Code == "42501")
}

// TraceQueryStart implements [pgx.QueryTracer].
func (*attempt) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements [pgx.QueryTracer].
func (*attempt) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
