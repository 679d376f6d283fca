package redisreplay_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/redis/redisreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

// rule returns the least rights of a receiver as docs/replay/redis.md has them.
func rule(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/replay/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^ACL SETUSER receiver (.*)$`).FindSubmatch(page)
	if m == nil {
		t.Fatal("docs/replay/redis.md has no line ACL SETUSER receiver")
	}
	return strings.Fields(string(m[1]))
}

// TestLeastRights: a user with the rights of the documentation can do everything that a
// receiver and qrt do, and each of the rights is needed.
func TestLeastRights(t *testing.T) {
	server := redispeer.New(t, durable)
	rights := rule(t)
	t.Setenv("QRT_TEST_REDIS_PASSWORD", "secret")
	set := func(rights []string) {
		t.Helper()
		arguments := append([]string{"ACL", "SETUSER", "receiver", "reset"}, rights...)
		for i, a := range arguments {
			arguments[i] = strings.ReplaceAll(a, "PASSWORD", "secret")
		}
		if got, err := send(t, server, arguments...); err != nil || got != "+OK" {
			t.Fatal(got, err)
		}
		if got, err := send(t, server, "SCRIPT", "FLUSH"); err != nil || got != "+OK" {
			t.Fatal(got, err)
		}
		if got, err := send(t, server, "FLUSHALL"); err != nil || got != "+OK" {
			t.Fatal(got, err)
		}
	}
	work := func() error {
		ctx := t.Context()
		u := "redis://receiver@" + server.Address() + "/0?password_env=QRT_TEST_REDIS_PASSWORD"
		s, err := redisreplay.Open(ctx, u, nil)
		if err != nil {
			return err
		}
		defer func() { _ = s.Close(context.WithoutCancel(ctx)) }()
		if err := everything(ctx, s); err != nil {
			return err
		}
		if err := s.SweepNow(ctx, group); err != nil {
			return err
		}
		if n, err := s.Stats(ctx); err != nil || n.Streams != 1 {
			return fmt.Errorf("after a sweep: %+v, %w", n, err)
		}
		return nil
	}
	set(rights)
	if err := work(); err != nil {
		t.Fatalf("with the rights of the documentation: %v", err)
	}
	for i, r := range rights {
		if !strings.HasPrefix(r, "+") || r == "+wait" { // there is no replica here
			continue
		}
		set(append(append([]string(nil), rights[:i]...), rights[i+1:]...))
		if err := work(); err == nil {
			t.Errorf("everything works without %s: leave it out of the documentation", r)
		}
	}
	set(append(rights, "-wait"))
	redispeer.Replica(t, server, nil)
	if err := work(); err == nil {
		t.Error("with a replica everything works without +wait")
	}
	set(rights)
	if err := work(); err != nil {
		t.Errorf("with a replica: %v", err)
	}
	// Keys of other programs are out of reach.
	if _, err := redisreplay.Open(t.Context(), "redis://receiver@"+server.Address()+"/0?prefix=other&password_env=QRT_TEST_REDIS_PASSWORD", nil); !errors.Is(err, driver.ErrPermission) {
		t.Errorf("another prefix: %v, want driver.ErrPermission", err)
	}
	t.Setenv("QRT_TEST_REDIS_PASSWORD", "wrong")
	err := work()
	if !errors.Is(err, driver.ErrPermission) || strings.Contains(err.Error(), "wrong") && !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("a wrong password: %v, want driver.ErrPermission", err)
	}
}

// everything makes each kind of call.
func everything(ctx context.Context, s *redisreplay.Store) error {
	r := messages(1, 1, 4)
	if _, err := begin(s, r...); err != nil {
		return err
	}
	if _, err := s.Renew(ctx, group, []replay.Lease{{ID: r[0].ID, Token: r[0].Token, Lease: time.Minute}}); err != nil {
		return err
	}
	if _, err := consume(s, r[:2]...); err != nil {
		return err
	}
	old := message(2, 1)
	old.SealedAt = old.SealedAt.Add(-60 * 24 * time.Hour) // past its retention when its page is folded
	if _, err := begin(s, old); err != nil {
		return err
	}
	if _, err := consume(s, old); err != nil {
		return err
	}
	if _, err := s.Finish(ctx, group, []replay.Finish{{ID: r[2].ID, Token: r[2].Token, Kind: replay.Parked}}); err != nil {
		return err
	}
	if _, err := s.Look(ctx, group, []replay.Query{{ID: r[0].ID, SealedAt: r[0].SealedAt}}); err != nil {
		return err
	}
	if _, err := s.Note(ctx, group, []replay.Note{{Sender: "sender", Stream: r[0].ID.Stream, Range: replay.Range{First: 4, Last: 4}, Kind: replay.NoteAccepted}}); err != nil {
		return err
	}
	streams := 0
	for _, err := range s.Streams(ctx, group) {
		if err != nil {
			return err
		}
		streams++
	}
	if streams != 2 {
		return fmt.Errorf("%d streams are listed, want 2", streams)
	}
	if err := s.Probe(ctx, group); err != nil {
		return err
	}
	_, err := s.Stats(ctx)
	return err
}

// TestTLS: a server with a certificate of an own authority, and clients with theirs.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, caKey)
	certificate(t, dir, "client", ca, caKey)
	file := func(name string) string { return filepath.Join(dir, name) }
	port := strconv.Itoa(redispeer.FreePort(t))
	redispeer.New(t, map[string]string{
		"tls-port": port, "tls-cert-file": file("server.pem"), "tls-key-file": file("server.key"), "tls-ca-cert-file": file("ca.pem"),
	})
	base := "rediss://127.0.0.1:" + port + "/0?fsync=never"
	client := "&cert=" + file("client.pem") + "&key=" + file("client.key")
	for n, c := range []struct {
		name, url, want string
	}{
		{"right", base + "&ca=" + file("ca.pem") + client, ""},
		{"right, by name", base + "&server_name=server&ca=" + file("ca.pem") + client, ""},
		{"unknown authority", base + client, "certificate"},
		{"another name", base + "&server_name=other&ca=" + file("ca.pem") + client, "certificate"},
		{"no client certificate", base + "&ca=" + file("ca.pem"), "look at the server"},
	} {
		s, err := redisreplay.Open(t.Context(), c.url, nil)
		if err == nil {
			if handle(t, closing(t, s), message(byte(n), 1)); c.want != "" {
				t.Errorf("%s: accepted", c.name)
			}
		} else if c.want == "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestRotatedCertificate: a client certificate that was rotated is used for the next
// connection, and the last one while the files do not belong together.
func TestRotatedCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := certificate(t, dir, "ca", nil, nil)
	first, _ := certificate(t, dir, "client", ca, caKey)
	file := func(name string) string { return filepath.Join(dir, name) }
	config, err := redisreplay.TLSConfig("rediss://127.0.0.1/0?ca=" + file("ca.pem") + "&cert=" + file("client.pem") + "&key=" + file("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	presents := func(what string, want *x509.Certificate) {
		t.Helper()
		got, err := config.Clone().GetClientCertificate(&tls.CertificateRequestInfo{})
		if err != nil || len(got.Certificate) != 1 || !bytes.Equal(got.Certificate[0], want.Raw) {
			t.Errorf("%s: another certificate, or %v", what, err)
		}
	}
	presents("as it was", first)
	second, _ := certificate(t, dir, "client", ca, caKey)
	presents("rotated", second)
	if err := os.Remove(file("client.key")); err != nil {
		t.Fatal(err)
	}
	presents("while it is written", second)
}

// certificate writes a certificate and its key. Without an issuer it is an authority.
func certificate(t *testing.T, dir, name string, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: issuer == nil, BasicConstraintsValid: true,
	}
	if issuer == nil {
		issuer, issuerKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for ext, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name+ext), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}
