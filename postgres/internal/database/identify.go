package database

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// querier is a connection, a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Identify names the database of a connection among all servers. A copy of a cluster has
// the name of the original.
func Identify(ctx context.Context, q querier) (name string, err error) {
	err = q.QueryRow(ctx, `SELECT 'postgres:' || s.system_identifier || '/' || d.oid
		FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()`).Scan(&name)
	return name, err
}
