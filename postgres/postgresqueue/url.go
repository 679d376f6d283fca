package postgresqueue

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Schemes are those of the URLs that [Open] takes.
func Schemes() []string { return []string{"postgres", "postgresql"} }

// own are the parameters of a URL that are this package's; passed are those of libpq
// (PostgreSQL, "Connection URIs") that pgx reads.
var (
	own = []string{"schema", "pooled", "poll", "timeout", "max_conns", "must_exist", "lock", "max_deliveries", "retention",
		"dead_letter_retention", "dedup_window"}
	passed = []string{"host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslsni", "sslnegotiation", "application_name",
		"target_session_attrs", "passfile", "krbsrvname", "krbspn"}
)

// parameters takes this package's parameters from the query of a URL.
type parameters struct {
	values url.Values
	err    error
}

func (p *parameters) fail(name, want string) {
	if p.err == nil {
		p.err = fmt.Errorf("postgresqueue: the URL's parameter %s must be %s", name, want)
	}
}

// text returns the value of a parameter and whether it is given.
func (p *parameters) text(name string) (string, bool) {
	v, ok := p.values[name]
	if ok && (len(v) != 1 || v[0] == "") {
		p.fail(name, "given once and not empty")
	}
	delete(p.values, name)
	return strings.Join(v, ""), ok
}

func (p *parameters) duration(name string, d *time.Duration) {
	v, ok := p.text(name)
	if !ok {
		return
	}
	n, err := time.ParseDuration(v)
	if err != nil || n <= 0 {
		p.fail(name, "a duration such as 30s")
	}
	*d = n
}

func (p *parameters) number(name string, n *int) {
	v, ok := p.text(name)
	if !ok {
		return
	}
	k, err := strconv.Atoi(v)
	if err != nil || k == 0 {
		p.fail(name, "a number other than 0; leave it out for the default")
	}
	*n = k
}

func (p *parameters) flag(name string, b *bool) {
	v, ok := p.text(name)
	if ok && v != "true" && v != "false" {
		p.fail(name, "true or false")
	}
	if ok {
		*b = v == "true"
	}
}

// parseURL reads a URL into o, and returns the configuration of the pool. Errors
// quote nothing of the URL but names of parameters that are known.
func parseURL(rawURL string, o *Options) (*pgxpool.Config, error) {
	u, err := url.Parse(rawURL)
	if err != nil || !slices.Contains(Schemes(), u.Scheme) || u.Opaque != "" {
		return nil, fmt.Errorf("postgresqueue: the URL does not parse; use postgres://user@host:5432/database")
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return nil, fmt.Errorf("postgresqueue: the query of the URL does not parse; write %%23 for a #")
	}
	p := parameters{values: values}
	if v, ok := p.text("schema"); ok {
		o.Schema = v
	}
	p.flag("pooled", &o.Pooled)
	p.flag("must_exist", &o.MustExist)
	p.duration("poll", &o.Poll)
	p.duration("timeout", &o.Timeout)
	p.number("max_conns", &o.MaxConns)
	p.duration("lock", &o.Default.Lock)
	p.duration("retention", &o.Default.Retention)
	p.duration("dead_letter_retention", &o.Default.DeadLetterRetention)
	p.duration("dedup_window", &o.Default.DedupWindow)
	p.number("max_deliveries", &o.Default.MaxDeliveries)
	if p.err != nil {
		return nil, p.err
	}
	for name, v := range p.values {
		if !slices.Contains(passed, name) {
			known := slices.Sorted(slices.Values(append(slices.Clone(own), passed...)))
			return nil, fmt.Errorf("postgresqueue: the URL has an unknown parameter; known: %s", strings.Join(known, ", "))
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
		return nil, fmt.Errorf("postgresqueue: the URL is not that of a database, or a file that it or the environment (PG...) names cannot be read; use postgres://user@host:5432/database")
	}
	if err := secure(c, p.values); err != nil {
		return nil, err
	}
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
			return fmt.Errorf("postgresqueue: the URL has no sslmode, and the server is on another machine: " +
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
