package router

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/examples/internal/service"
)

// Whatever is wrong is named by its variable, all at once, and no value is shown.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"BROKER_URL": "mem://", "WEBHOOK_SECRET": secret, "ADMIN_LISTEN": "127.0.0.1:0", "LISTEN": "127.0.0.1:0",
		"TASK_TACTICIAN_KEYS_URL": "file:///a", "MERGE_WARDEN_KEYS_URL": "file:///b", "SPEC_SENTINEL_KEYS_URL": "file:///c",
	}
	var c Config
	if err := service.Load(&c, good); err != nil {
		t.Fatal(err)
	}
	const removed = "\x00"
	for _, x := range []struct {
		name   string
		change map[string]string
		want   []string
	}{
		{"nothing is set", map[string]string{"BROKER_URL": removed, "WEBHOOK_SECRET": removed}, []string{"BROKER_URL is not set", "WEBHOOK_SECRET is not set"}},
		{"empty", map[string]string{"BROKER_URL": ""}, []string{"BROKER_URL is empty"}},
		{"a short secret", map[string]string{"WEBHOOK_SECRET": "s3cret"}, []string{"WEBHOOK_SECRET is not a secret of at least 16 bytes"}},
		{"no duration", map[string]string{"SEND_TIMEOUT": "s3cret"}, []string{"SEND_TIMEOUT is not a duration"}},
		{"zero", map[string]string{"READ_TIMEOUT": "0s", "MAX_BODY": "0", "MAX_IN_FLIGHT": "0"}, []string{"READ_TIMEOUT must be", "MAX_BODY must be", "MAX_IN_FLIGHT must be"}},
		{"no time", map[string]string{"STOP_DELAY": "-1s"}, []string{"STOP_DELAY is negative"}},
		{"no number", map[string]string{"MAX_BODY": "s3cret"}, []string{"MAX_BODY is not a whole number"}},
		{"no boolean", map[string]string{"ENCRYPT": "s3cret"}, []string{"ENCRYPT is not true or false"}},
		{"no level", map[string]string{"LOG_LEVEL": "s3cret"}, []string{"LOG_LEVEL is not one of"}},
		{"no keys", map[string]string{"MERGE_WARDEN_KEYS_URL": removed}, []string{"MERGE_WARDEN_KEYS_URL is not set"}},
		{"shared keys", map[string]string{"MERGE_WARDEN_KEYS_URL": "file:///a"}, []string{"the same keys"}},
		{"shared queues", map[string]string{"MERGE_WARDEN_QUEUE": "spec-sentinel"}, []string{"the same queue"}},
	} {
		environ := map[string]string{}
		for name, value := range good {
			environ[name] = value
		}
		for name, value := range x.change {
			environ[name] = value
			if value == removed {
				delete(environ, name)
			}
		}
		err := service.Load(new(Config), environ)
		if err == nil {
			t.Errorf("%s: no error", x.name)
			continue
		}
		for _, want := range x.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", x.name, err, want)
			}
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the error shows the value: %v", x.name, err)
		}
	}
	// What only opening finds out.
	for variable, value := range map[string]string{
		"BROKER_URL": "kafka://x", "TASK_TACTICIAN_KEYS_URL": "file:///no/such/file", "LISTEN": "127.0.0.1:no",
	} {
		environ := map[string]string{}
		for name, value := range good {
			environ[name] = value
		}
		for v, name := range map[string]string{"TASK_TACTICIAN_KEYS_URL": "a", "MERGE_WARDEN_KEYS_URL": "b", "SPEC_SENTINEL_KEYS_URL": "c"} {
			environ[v], _ = keyFile(t, name)
		}
		environ[variable] = value
		err := Run(t.Context(), environ, &bytes.Buffer{})
		want := variable
		if variable == "LISTEN" {
			want = "listening for webhooks"
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s=%s: %v", variable, value, err)
		}
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	t.Parallel()
	c, _ := newConfig(t)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c, "secret", c.Secret)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", c, c, c), fmt.Sprintf("%s %q %x", c.Secret, c.Secret, c.Secret), log.String()} {
		if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) {
			t.Errorf("it shows: %s", text)
		}
	}
	if string(c.Secret.Reveal()) != secret {
		t.Error("and it is not the secret")
	}
}
