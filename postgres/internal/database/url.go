// Package database opens pools of connections to PostgreSQL and sorts its errors, for
// the packages of this module.
package database

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// passed are the parameters of a URL that are libpq's (PostgreSQL, "Connection URIs")
// and that pgx reads.
var passed = []string{"host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslsni", "sslnegotiation", "application_name",
	"target_session_attrs", "passfile", "krbsrvname", "krbspn"}

// Parameters are those of the query of a URL. Each is taken by its name; the first
// error stays.
type Parameters struct {
	values url.Values
	taken  []string
	err    error
}

func (p *Parameters) fail(name, want string) {
	if p.err == nil {
		p.err = fmt.Errorf("the URL's parameter %s must be %s", name, want)
	}
}

// Text sets v if the parameter is given.
func (p *Parameters) Text(name string, v *string) {
	p.taken = append(p.taken, name)
	given, ok := p.values[name]
	if !ok {
		return
	}
	delete(p.values, name)
	if len(given) != 1 || given[0] == "" {
		p.fail(name, "given once and not empty")
		return
	}
	*v = given[0]
}

// Duration sets d if the parameter is given. It must be above zero.
func (p *Parameters) Duration(name string, d *time.Duration) {
	var text string
	if p.Text(name, &text); text == "" {
		return
	}
	n, err := time.ParseDuration(text)
	if err != nil || n <= 0 {
		p.fail(name, "a duration such as 30s")
		return
	}
	*d = n
}

// Number sets n if the parameter is given. It must be above zero.
func (p *Parameters) Number(name string, n *int) {
	p.number(name, n, func(k int) bool { return k > 0 }, "a number above zero; leave it out for the default")
}

// Signed is Number for a parameter whose negative values have a meaning.
func (p *Parameters) Signed(name string, n *int) {
	p.number(name, n, func(k int) bool { return k != 0 }, "a number other than 0; leave it out for the default")
}

func (p *Parameters) number(name string, n *int, good func(int) bool, want string) {
	var text string
	if p.Text(name, &text); text == "" {
		return
	}
	k, err := strconv.Atoi(text)
	if err != nil || !good(k) {
		p.fail(name, want)
		return
	}
	*n = k
}

// Flag sets b if the parameter is given.
func (p *Parameters) Flag(name string, b *bool) {
	var text string
	switch p.Text(name, &text); text {
	case "":
	case "true", "false":
		*b = text == "true"
	default:
		p.fail(name, "true or false")
	}
}

// ParseURL reads a URL. Each connection reads the files again that it names (passfile,
// sslcert, sslkey, sslrootcert), so that what was rotated is used without a restart.
// take takes the parameters that are the caller's, the others are libpq's. Errors quote
// nothing of the URL but names of parameters that are known.
func ParseURL(rawURL string, take func(*Parameters)) (*pgxpool.Config, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Opaque != "" {
		return nil, errors.New("the URL does not parse; use postgres://user@host:5432/database")
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return nil, errors.New("the query of the URL does not parse; write %23 for a #")
	}
	p := &Parameters{values: values}
	if take(p); p.err != nil {
		return nil, p.err
	}
	for name, v := range p.values {
		if !slices.Contains(passed, name) {
			known := slices.Sorted(slices.Values(append(p.taken, passed...)))
			return nil, fmt.Errorf("the URL has an unknown parameter; known: %s", strings.Join(known, ", "))
		}
		// pgx takes one of several, and its own default, or PG..., for an empty one: not
		// always what secure judges.
		if len(v) != 1 || v[0] == "" {
			p.fail(name, "given once and not empty")
		}
	}
	if p.err != nil {
		return nil, p.err
	}
	u.RawQuery = p.values.Encode()
	c, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		return nil, errors.New("the URL is not that of a database, or a file that it or the environment (PG...) names cannot be read; use postgres://user@host:5432/database")
	}
	if err := secure(c, p.values); err != nil {
		return nil, err
	}
	c.BeforeConnect = (&rotation{url: u.String(), last: c.ConnConfig}).beforeConnect
	return c, nil
}

// secure makes up for two defaults of libpq: without sslmode it falls back to a
// connection that is not encrypted, and it takes a standby for a primary.
func secure(c *pgxpool.Config, given url.Values) error {
	cc := &c.ConnConfig.Config
	if !given.Has("sslmode") && os.Getenv("PGSSLMODE") == "" {
		remote := !local(cc.Host)
		for _, f := range cc.Fallbacks {
			remote = remote || !local(f.Host)
		}
		if remote {
			return errors.New("the URL has no sslmode, and the server is on another machine: " +
				"add sslmode=verify-full, and sslrootcert=FILE if its certificate is of your own authority")
		}
	}
	if !given.Has("target_session_attrs") && os.Getenv("PGTARGETSESSIONATTRS") == "" {
		cc.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return nil
}

// local reports whether a host is this machine, by TCP or a Unix socket.
func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback() || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@")
}

// schemaName is an identifier that needs no quoting.
var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`)

// CheckSchema refuses a name of a schema that would need quoting.
func CheckSchema(name string) error {
	if !schemaName.MatchString(name) || strings.HasPrefix(name, "pg_") {
		return errors.New("the name of the schema must be 1 to 40 lower-case letters, digits and underscores, not beginning with a digit or pg_")
	}
	return nil
}
