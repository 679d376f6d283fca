package postgresqueue

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Roles call functions of the schema. If these run with the rights of the caller, or
// with those of a role other than the schema's owner, then the owner can do what that
// role can. So nothing of a schema runs before it is verified, and what is verified is
// more than the text.
//
// An owner can still change a function later. That is why a superuser does not use
// the schema of another role at all.

// function is what a function has to be.
type function struct {
	name      string
	arguments string
	result    string
	language  string
	definer   bool
	settings  []string // name=value, sorted
	source    string
}

// functionText finds the functions of a migration.
var functionText = regexp.MustCompile(
	`(?s)CREATE (?:OR REPLACE )?FUNCTION \{schema\}\.(\w+)\(([^)]*)\)(?:\s+RETURNS (.*?))?\s+LANGUAGE (\w+)(.*?) AS \$fn\$(.*?)\$fn\$;`)

// functions returns the functions of a version of the schema, by name.
func functions(version int) map[string]function {
	return maps.Clone(functionsOfVersions()[version])
}

// functionsOfVersions has the functions of each version of the schema. Every broker that
// is opened needs them, and to find them takes longer than all else that it does.
var functionsOfVersions = sync.OnceValue(func() []map[string]function {
	versions := []map[string]function{{}}
	for i, m := range migrations {
		all := maps.Clone(versions[i])
		for _, f := range functionText.FindAllStringSubmatch(m, -1) {
			clauses := strings.Replace(f[5], "{settings}", settings, 1)
			want := function{name: f[1], arguments: types(f[2]), result: types(f[3]), language: f[4], source: f[6]}
			if want.result == "" {
				want.result = "record" // of OUT arguments
			}
			before, rest, _ := strings.Cut(clauses, "SET ")
			want.definer = strings.Contains(before, "SECURITY DEFINER")
			for setting := range strings.SplitSeq(rest, "SET ") {
				if name, value, ok := strings.Cut(plain(setting), " = "); ok {
					want.settings = append(want.settings, name+"="+strings.Trim(value, "'"))
				}
			}
			slices.Sort(want.settings)
			all[want.name] = want
		}
		versions = append(versions, all)
	}
	return versions
})

// plain is text with single spaces and without the quotes of identifiers.
func plain(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), `"`, "")
}

// types is a list of arguments as the server writes it.
func types(list string) string {
	return strings.ReplaceAll(plain(list), "timestamptz", "timestamp with time zone")
}

// in returns f as it is in a schema.
func (f function) in(schema string) function {
	r := strings.NewReplacer("{schema}", schema)
	f.arguments, f.result = r.Replace(f.arguments), r.Replace(f.result)
	f.settings = slices.Clone(f.settings)
	for i := range f.settings {
		f.settings[i] = r.Replace(f.settings[i])
	}
	return f
}

func (f function) equal(g function) bool {
	return f.name == g.name && f.arguments == g.arguments && f.result == g.result && f.language == g.language &&
		f.definer == g.definer && slices.Equal(f.settings, g.settings) && f.source == g.source
}

// foundFunctions has the functions of a schema. A type is written with its schema
// unless that is in the search_path, which readSchema sets.
const foundFunctions = `SELECT p.proname::text, pg_catalog.pg_get_function_arguments(p.oid), coalesce(pg_catalog.pg_get_function_result(p.oid), ''),
	l.lanname::text, p.prosecdef, coalesce(p.proconfig, '{}'), p.prosrc, p.proowner = n.nspowner AND p.prokind = 'f'
	FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang
	WHERE n.nspname = $1`

// foundOthers has what must not be in a schema: what stands in place of a table, runs
// code when one is used, or is found in place of what is in pg_catalog; what another
// role owns; and the right of another role to add such things.
const foundOthers = `SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND (c.relkind NOT IN ('r', 'i', 'S', 'c', 't') OR c.relowner <> n.nspowner OR c.relrowsecurity)
	UNION ALL SELECT 'trigger ' || t.tgname FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1
	UNION ALL SELECT 'rule ' || rulename FROM pg_catalog.pg_rules WHERE schemaname = $1
	UNION ALL SELECT 'operator ' || o.oprname FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
		WHERE n.nspname = $1
	UNION ALL SELECT 'type ' || t.typname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
		WHERE n.nspname = $1 AND t.typtype <> 'c' AND t.typcategory <> 'A'
	UNION ALL SELECT 'the right of another role to create' FROM pg_catalog.pg_namespace n, LATERAL pg_catalog.aclexplode(n.nspacl) a
		WHERE n.nspname = $1 AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner`

// verify fails with ErrAltered unless the schema has these functions and nothing that
// changes what they do.
func verify(ctx context.Context, tx pgx.Tx, schema string, want map[string]function) error {
	found, err := readSchema(ctx, tx, schema)
	if err != nil {
		return err
	}
	for _, f := range found {
		if expected, ok := want[f.name]; !ok || !f.equal(expected.in(schema)) {
			return altered(f.name)
		}
		delete(want, f.name) // another of that name is not ours
	}
	for name := range want {
		return altered(name + " is missing")
	}
	return nil
}

// verifyOne does so for one function, which is the same in every version.
func verifyOne(ctx context.Context, tx pgx.Tx, schema, name string) error {
	found, err := readSchema(ctx, tx, schema)
	if err != nil {
		return err
	}
	want := functions(len(migrations))[name].in(schema)
	ours := 0
	for _, f := range found {
		if f.name == name && !f.equal(want) {
			return altered(name)
		}
		if f.name == name {
			ours++
		}
	}
	if ours != 1 {
		return altered(name)
	}
	return nil
}

func altered(what string) error { return fmt.Errorf("%w (%s)", ErrAltered, what) }

// readSchema returns the functions of a schema, and ErrAltered if there is something
// that must not be.
func readSchema(ctx context.Context, tx pgx.Tx, schema string) ([]function, error) {
	if _, err := tx.Exec(ctx, `SET LOCAL search_path = pg_catalog, pg_temp`); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, foundOthers, schema)
	if err != nil {
		return nil, err
	}
	others, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	if len(others) > 0 {
		return nil, altered(others[0])
	}
	if rows, err = tx.Query(ctx, foundFunctions, schema); err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []function
	for rows.Next() {
		var f function
		var owned bool
		if err := rows.Scan(&f.name, &f.arguments, &f.result, &f.language, &f.definer, &f.settings, &f.source, &owned); err != nil {
			return nil, err
		}
		if !owned {
			return nil, altered(f.name + " has another owner than the schema")
		}
		f.arguments, f.result = plain(f.arguments), plain(f.result)
		for i := range f.settings {
			f.settings[i] = plain(f.settings[i])
		}
		slices.Sort(f.settings)
		found = append(found, f)
	}
	return found, rows.Err()
}
