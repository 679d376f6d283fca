package database

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
)

// moreRights says whether the role me has a right that reaches beyond what was granted to
// it on tables and functions, and the owner has not: attributes of roles and predefined
// roles (PostgreSQL documentation, Role Attributes and Predefined Roles). Membership counts
// also if the role would have to be set first.
const moreRights = `me.rolsuper AND NOT owner.rolsuper OR me.rolcreaterole AND NOT owner.rolcreaterole
	OR me.rolreplication AND NOT owner.rolreplication OR me.rolbypassrls AND NOT owner.rolbypassrls
	OR EXISTS (SELECT 1 FROM pg_catalog.pg_roles r
		WHERE r.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files', 'pg_read_all_data', 'pg_write_all_data')
		AND pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER') AND NOT pg_catalog.pg_has_role(owner.oid, r.oid, 'MEMBER'))`

// CheckOwner refuses that a role with far-reaching rights, such as a superuser, uses the
// schema of a role without them: its owner can add to it what then runs with these rights.
// A schema that is missing is fine. Page is the page of docs/ whose section Roles says what
// to do.
func CheckOwner(ctx context.Context, tx pgx.Tx, schema, page string) error {
	var dangerous bool
	err := tx.QueryRow(ctx, `SELECT `+moreRights+` FROM pg_catalog.pg_namespace n
		JOIN pg_catalog.pg_roles owner ON owner.oid = n.nspowner, pg_catalog.pg_roles me
		WHERE n.nspname = $1 AND me.rolname = current_user`, schema).Scan(&dangerous)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err == nil && dangerous:
		return driver.Errorf(driver.Permission, "a superuser, or another role with more rights than the schema's owner, does not use the schema, "+
			"because its owner could act with these rights then: connect as the schema's owner, or as a role that may do what is needed (%s, Roles)", page)
	}
	return err
}

// CheckMaker refuses to make anything in a schema that belongs to another role, which
// could make it act with the rights of its maker.
func CheckMaker(ctx context.Context, tx pgx.Tx, schema, page string) error {
	var own bool
	err := tx.QueryRow(ctx, `SELECT me.oid = n.nspowner FROM pg_catalog.pg_namespace n, pg_catalog.pg_roles me
		WHERE n.nspname = $1 AND me.rolname = current_user`, schema).Scan(&own)
	if err == nil && !own {
		err = driver.Errorf(driver.Permission, "the schema belongs to another role: let its owner open it once (%s, Roles)", page)
	}
	return err
}
