package database

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
)

// CheckOwner refuses that a superuser uses the schema of a role that is none: its owner
// can add to it what then runs with all rights. A schema that is missing is fine. Page is
// the page of docs/ whose section Roles says what to do.
func CheckOwner(ctx context.Context, tx pgx.Tx, schema, page string) error {
	var dangerous bool
	err := tx.QueryRow(ctx, `SELECT me.rolsuper AND NOT owner.rolsuper FROM pg_catalog.pg_namespace n
		JOIN pg_catalog.pg_roles owner ON owner.oid = n.nspowner, pg_catalog.pg_roles me
		WHERE n.nspname = $1 AND me.rolname = current_user`, schema).Scan(&dangerous)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err == nil && dangerous:
		return driver.Errorf(driver.Permission, "a superuser does not use the schema of another role, which could act as superuser then: "+
			"connect as the schema's owner, or as a role that may do what is needed (%s, Roles)", page)
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
