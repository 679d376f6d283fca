package kvkeys

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestURL(t *testing.T) {
	for _, c := range []struct {
		url, vault, name string
		layout           Layout
	}{
		{"azkv://task-tactician", "task-tactician.vault.azure.net", "", Secrets},
		{"azkv://Task-Tactician/", "task-tactician.vault.azure.net", "", Secrets},
		{"azkv://bots.vault.azure.net/pulls?layout=secrets", "bots.vault.azure.net", "pulls", Secrets},
		{"azkv://bots.vault.azure.cn/pulls?layout=versions", "bots.vault.azure.cn", "pulls", Versions},
	} {
		vault, name, o, err := parseURL(c.url)
		if err != nil || vault != c.vault || name != c.name || o.Layout != c.layout {
			t.Errorf("%s: %q, %q, %+v, %v", c.url, vault, name, o, err)
		}
	}
	const secret = "s3cr3t"
	for _, u := range []string{
		"azkv://", "azkv:///k", "azkv:" + secret, "https://v/k", "azkv://u:" + secret + "@v/k", "azkv://v:1/k", "azkv://v/k#" + secret, "azkv://%zz",
		"azkv://v/k?layout=" + secret, "azkv://v/k?layout=versions&layout=secrets", "azkv://v/k?x=" + secret, "azkv://v/k?%zz",
		"azkv://v/a%20b", "azkv://v/a/b", "azkv://v/a--b", "azkv://v/a-", "azkv://v_" + secret + "/k", "azkv://[::1]/k", "azkv://v?layout=versions",
		"azkv://v/" + strings.Repeat("k", 62),
	} {
		_, _, _, err := parseURL(u)
		if err == nil {
			t.Errorf("%s is accepted", u)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the error repeats a value: %v", err)
		}
	}
}

func TestOpen(t *testing.T) {
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "AzureCLICredential")
	p, err := Open(t.Context(), "azkv://task-tactician/pulls?layout=versions")
	if err != nil || p.vault != "task-tactician.vault.azure.net" || p.layout != Versions {
		t.Fatalf("%+v, %v; want the vault of that name, with the layout Versions", p, err)
	}
	if _, err := Open(t.Context(), "azkv://v/a/b"); err == nil {
		t.Error("a bad URL is accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, "azkv://v"); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "s3cr3t")
	_, err = Open(t.Context(), "azkv://v")
	if e := new(Error); !errors.As(err, &e) || e.Reason != Credentials || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("a credential of that name: %v", err)
	}
}
