package redisreplay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Schemes are the schemes of the URLs that [Open] takes.
func Schemes() []string { return []string{"redis", "rediss"} }

// parameters takes parameters from the query of a URL.
type parameters struct {
	values url.Values
	taken  []string
	err    error
}

func (p *parameters) fail(name, want string) {
	if p.err == nil {
		p.err = fmt.Errorf("redisreplay: the URL's parameter %s must be %s", name, want)
	}
}

// text returns the value of a parameter, "" if it is not given.
func (p *parameters) text(name string) string {
	p.taken = append(p.taken, name)
	v, ok := p.values[name]
	if ok && (len(v) != 1 || v[0] == "") {
		p.fail(name, "given once and not empty")
	}
	delete(p.values, name)
	return strings.Join(v, "")
}

func (p *parameters) duration(name string, d *time.Duration) {
	v := p.text(name)
	if v == "" {
		return
	}
	n, err := time.ParseDuration(v)
	if err != nil || n <= 0 {
		p.fail(name, "a duration such as 1s")
	}
	*d = n
}

// choice returns the index of the value in the list, or otherwise if there is none.
func (p *parameters) choice(name string, otherwise int, list ...string) int {
	v := p.text(name)
	if v == "" {
		return otherwise
	}
	i := slices.Index(list, v)
	if i < 0 {
		p.fail(name, "one of "+strings.Join(list, ", "))
	}
	return max(i, 0)
}

// variable returns the value of the environment variable that a parameter names.
func (p *parameters) variable(name string) string {
	v := p.text(name)
	if v == "" {
		return ""
	}
	value := os.Getenv(v)
	if value == "" {
		p.fail(name, "the name of an environment variable that is set")
	}
	return value
}

func (p *parameters) replicas(n *int) {
	switch v := p.text("replicas"); v {
	case "":
	case "all":
		*n = 0
	case "none":
		*n = NoReplicas
	default:
		k, err := strconv.Atoi(v)
		if err != nil || k < 1 {
			p.fail("replicas", "all, none or a number above zero")
		}
		*n = k
	}
}

// parseURL reads a URL into o, and returns where the server is.
func parseURL(rawURL string, o *Options) (*target, error) {
	u, err := url.Parse(rawURL)
	// Package url takes a comma for a part of the host.
	if err != nil || !slices.Contains(Schemes(), u.Scheme) || u.Opaque != "" || u.Host == "" {
		return nil, errors.New("redisreplay: the URL does not parse; use rediss://user@host:6379/0")
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return nil, errors.New("redisreplay: the query of the URL does not parse; write %23 for a #")
	}
	p := parameters{values: values}
	if v := p.text("prefix"); v != "" {
		o.Prefix = v
	}
	p.replicas(&o.Replicas)
	o.MustExist = p.choice("must_exist", 0, "false", "true") == 1 || o.MustExist
	p.duration("replica_timeout", &o.ReplicaTimeout)
	p.duration("timeout", &o.Timeout)
	o.Fsync = Fsync(p.choice("fsync", int(o.Fsync), "always", "everysec", "never")) //nolint:gosec // G115: 0 to 2
	t := &target{sentinel: p.text("sentinel"), cluster: p.choice("cluster", 0, "false", "true") == 1}
	t.base.Username, t.base.Password = u.User.Username(), p.variable("password_env")
	t.sentinelUsername, t.sentinelPassword = p.text("sentinel_user"), p.variable("sentinel_password_env")
	if secret, given := u.User.Password(); given && t.base.Password == "" {
		t.base.Password = secret
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		if t.base.DB, err = strconv.Atoi(db); err != nil || t.base.DB < 0 {
			return nil, errors.New("redisreplay: the URL's path is the number of a database, such as /0")
		}
	}
	port := "6379"
	if t.sentinel != "" {
		port = "26379"
	}
	t.addresses = addresses(u.Host, port)
	secure(u.Scheme, &p, t)
	if p.err != nil {
		return nil, p.err
	}
	switch {
	case len(p.values) > 0:
		slices.Sort(p.taken)
		return nil, fmt.Errorf("redisreplay: the URL has an unknown parameter; known: %s", strings.Join(p.taken, ", "))
	case t.sentinel != "" && t.cluster:
		return nil, errors.New("redisreplay: the URL has both sentinel and cluster: use one")
	case t.cluster && t.base.DB != 0:
		return nil, errors.New("redisreplay: a cluster has database 0 only: leave the path out")
	case len(t.addresses) > 1 && t.sentinel == "" && !t.cluster:
		return nil, errors.New("redisreplay: the URL has several hosts: add cluster=true, or sentinel= with the primary's name")
	}
	return t, nil
}

// addresses splits a list of hosts. One without a port has the port of the last.
func addresses(hosts, port string) []string {
	list := strings.Split(hosts, ",")
	for i := len(list) - 1; i >= 0; i-- {
		host, own, err := net.SplitHostPort(list[i])
		if err != nil {
			host = strings.Trim(list[i], "[]")
		} else if own != "" {
			port = own
		}
		list[i] = net.JoinHostPort(host, port)
	}
	return list
}

// secure sets up TLS, or refuses to go without.
func secure(scheme string, p *parameters, t *target) {
	off := p.choice("tls", 0, "on", "off") == 1
	ca, cert, key, name := p.text("ca"), p.text("cert"), p.text("key"), p.text("server_name")
	if scheme == "redis" {
		if ca+cert+key+name != "" {
			p.fail("ca, cert, key or server_name", "left out with redis://; TLS is rediss://")
		}
		for _, a := range t.addresses {
			host, _, _ := net.SplitHostPort(a) // joined by addresses
			if ip := net.ParseIP(host); !off && host != "localhost" && (ip == nil || !ip.IsLoopback()) && p.err == nil {
				p.err = errors.New("redisreplay: redis:// is in clear, and the server is on another machine: use rediss://, or add tls=off")
			}
		}
		return
	}
	if off {
		p.fail("tls", "left out with rediss://")
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name}
	if ca != "" {
		pem, err := os.ReadFile(ca) //nolint:gosec // G304: the caller names it
		c.RootCAs = x509.NewCertPool()
		if err != nil || !c.RootCAs.AppendCertsFromPEM(pem) {
			p.fail("ca", "a readable PEM file with certificates")
		}
	}
	if cert != "" || key != "" {
		own := &ownCertificate{cert: cert, key: key}
		if own.read() != nil {
			p.fail("cert and key", "readable PEM files that belong together")
		}
		c.GetClientCertificate = own.get
	}
	t.base.TLSConfig = c
}

// ownCertificate is a certificate for the server, with its key. It is read again for each
// connection, so that one that was rotated is used without a restart.
type ownCertificate struct {
	cert, key string     // files
	mu        sync.Mutex // guards last
	last      *tls.Certificate
}

func (o *ownCertificate) read() error {
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = &pair
	return nil
}

// get is tls.Config.GetClientCertificate. While the files cannot be read, because they are
// being written for example, it returns what was read last.
func (o *ownCertificate) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	_ = o.read()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last, nil
}
