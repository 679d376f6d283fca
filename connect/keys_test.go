package connect

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/keys"
)

func keyFile(t *testing.T, id keys.ID) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	err := keys.UpdateFile(path, func(s *keys.Set) error {
		k, err := keys.Generate(id, nil)
		s.Keys, s.Current = []*keys.Key{k}, id
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenKeys(t *testing.T) {
	path := keyFile(t, "k1")
	t.Setenv("BOT_KEYS", "k1=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
	t.Setenv("BOT_KEYS_CURRENT", "k1")
	t.Chdir(filepath.Dir(path))
	for _, url := range []string{"file://" + filepath.ToSlash(path), "file:keys.json", "env://BOT_KEYS"} {
		p, err := OpenKeys(t.Context(), url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if id, err := p.CurrentKeyID(t.Context()); err != nil || id != "k1" {
			t.Errorf("%s: current %q, %v", url, id, err)
		}
		if err := errors.Join(p.Close(t.Context()), p.Close(t.Context())); err != nil {
			t.Errorf("%s: close: %v", url, err)
		}
	}
	folder := filepath.Join(filepath.Dir(path), "mounted")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "k1"), []byte("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="), 0o444); err != nil {
		t.Fatal(err)
	}
	inFolder := "folder://" + filepath.ToSlash(folder)
	if _, err := OpenKeys(t.Context(), inFolder); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("a file that all may read, without the parameter: %v", err)
	}
	p, err := OpenKeys(t.Context(), inFolder+"/?world_readable=true")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := p.CurrentKeyID(t.Context()); err != nil || id != "k1" {
		t.Errorf("folder: current %q, %v", id, err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got, err := KeyFile("file://" + filepath.ToSlash(path)); err != nil || got != path {
		t.Errorf("KeyFile: %q, %v", got, err)
	}
}

func TestOpenSecretsManager(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	p, err := OpenKeys(t.Context(), "awssm://eu-west-1/qrt/pulls?endpoint=http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A caller that opens keys can be told what their cache does.
func TestKeyCacheTells(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"AccessDeniedException"}`)
	}))
	defer refuses.Close()
	told := make(chan keys.CacheEvent, 100)
	s, err := Open(t.Context(), Config{
		Broker: "mem://", Keys: "awssm://eu-west-1/qrt/pulls?endpoint=" + refuses.URL,
		KeyCache: &keys.CachedOptions{OnEvent: func(e keys.CacheEvent) { told <- e }},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Keys.CurrentKeyID(t.Context()); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("error %v, want %v", err, keys.ErrUnavailable)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	close(told)
	failed := false
	for e := range told {
		failed = failed || e.Kind == keys.CacheError && e.Err != nil
	}
	if !failed {
		t.Error("the observer was not told of the failure")
	}
}

func TestOpenKeyVault(t *testing.T) {
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
	for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_USERNAME"} {
		t.Setenv(name, "")
	}
	for _, url := range []string{"azkv://task-tactician", "azkv://bots.vault.azure.net/pulls?layout=versions"} {
		p, err := OpenKeys(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestBadKeysURL(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"", "not a URL"},
		{"k1=s3cret", "not a URL"},
		{"k1:s3cret", "unknown scheme; use one of"},
		{"vault://s3cret/x", `unknown scheme "vault"`},
		{"file://", "no file is named"},
		{"file:///x?mode=s3cret", "unknown parameter"},
		{"file://s3cret/x", "three slashes"},
		{"env://", "env://PREFIX"},
		{"env://A/s3cret", "env://PREFIX"},
		{"env://NOT_SET_ANYWHERE", "key not found"},
		{"awssm://eu-west-1/", "smkeys"},
		{"awssm://u:s3cret@eu-west-1/x", "credentials"},
		{"azkv://", "no vault"},
		{"azkv://u:s3cret@vault/x", "credentials"},
		{"azkv://vault/x?endpoint=s3cret", "unknown URL parameter"},
	} {
		p, err := OpenKeys(t.Context(), c.url)
		if err == nil || p != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.url, err, c.want)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: the error shows it: %v", c.url, err)
		}
	}
	for _, url := range []string{"env://X", "file:", "s3cret"} {
		if _, err := KeyFile(url); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("KeyFile(%q): %v", url, err)
		}
	}
	path := keyFile(t, "k1")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeys(t.Context(), "file://"+filepath.ToSlash(path)); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("a file that others can read: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenKeys(ctx, "env://X"); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}
