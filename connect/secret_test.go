package connect

import (
	"context"
	"net/url"
	"strings"
	"testing"
)

// secret is in place of one, as base64 has it.
const secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0+c2VjcmV0MDE="

// connectionString has it where Azure puts it.
const connectionString = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=root;SharedAccessKey=" + secret

// shows reports whether a text has a part of the secret.
func shows(text string) bool {
	if unescaped, err := url.QueryUnescape(text); err == nil && strings.Contains(strings.ToLower(unescaped), "c2vjcmv0") {
		return true
	}
	return strings.Contains(strings.ToLower(text), "c2vjcmv0")
}

// misplaced are URLs with a secret where people put one by mistake.
func misplaced() (all []string) {
	escaped := url.QueryEscape(secret)
	for _, scheme := range []string{"mem", "sqlite", "postgres", "postgresql", "sqs", "sb", "file", "env", "awssm", "azkv", "dynamodb", "aztable", "kafka"} {
		for _, rest := range []string{
			"://user:" + escaped + "@host/path", "://" + escaped + "@host/path", "://user:" + secret + "@host/path",
			"://eu-west-1/?" + escaped, "://eu-west-1/?" + escaped + "=1", "://eu-west-1/?" + secret,
			"://eu-west-1/x?" + escaped, "://eu-west-1/x?" + escaped + "=1", "://eu-west-1/x?" + secret,
			":///path/x?key=" + escaped, ":///path/x?" + escaped, ":///path/x?" + escaped + "=1", ":///path/x?" + secret, ":///path/x#" + secret,
			"://host/x?password=" + escaped, "://host/x?connection=" + escaped, "://host/x?endpoint=" + escaped,
			"://host/x?endpoint=" + url.QueryEscape("http://user:"+secret+"@host/"),
			":///?connection=" + escaped, ":///?connection=" + url.QueryEscape(connectionString), ":///?connection=" + connectionString,
			"://host/x?lock=" + escaped, "://host/x?sessions=" + escaped, "://host/x?max_deliveries=" + escaped, "://host/x?account=" + escaped,
			"://ns.servicebus.windows.net/;SharedAccessKeyName=root;SharedAccessKey=" + secret,
		} {
			all = append(all, scheme+rest)
		}
	}
	return append(all, connectionString, secret, "k1="+secret, "k1:"+secret, connectionString+"%zz", "Endpoint="+secret,
		`{"current":"k1","keys":[{"id":"k1","secret":"`+secret+`"}]}`)
}

// open opens a URL as everything there is, and returns what each said.
func openAs(ctx context.Context, rawURL string) map[string]error {
	said := make(map[string]error)
	if p, err := OpenBroker(ctx, rawURL); err == nil {
		_ = p.Close(ctx)
	} else {
		said["OpenBroker"] = err
	}
	if p, err := OpenKeys(ctx, rawURL); err == nil {
		_ = p.Close(context.Background())
	} else {
		said["OpenKeys"] = err
	}
	if p, err := OpenReplayStore(ctx, rawURL); err == nil {
		_ = p.Close(context.Background())
	} else {
		said["OpenReplayStore"] = err
	}
	_, said["KeyFile"] = KeyFile(rawURL)
	said["CheckReach"] = CheckReach(rawURL, rawURL)
	return said
}

// TestNoSecretShown puts a secret into every place of a URL that takes none.
func TestNoSecretShown(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	for _, rawURL := range misplaced() {
		for call, err := range openAs(t.Context(), rawURL) {
			if err != nil && shows(err.Error()) {
				t.Errorf("%s(%q): %v", call, rawURL, err)
			}
		}
		if text := Redact(rawURL); shows(text) {
			t.Errorf("Redact(%q) = %q", rawURL, text)
		}
	}
}

// FuzzRedact puts the secret into the middle of anything. It may come out only
// as part of a host or of a path, which are there to be read.
func FuzzRedact(f *testing.F) {
	for _, rawURL := range misplaced() {
		for _, s := range []string{secret, url.QueryEscape(secret)} {
			if before, after, ok := strings.Cut(rawURL, s); ok {
				f.Add(before, after)
			}
		}
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		if shows(before) || shows(after) {
			return
		}
		for _, s := range []string{secret, url.QueryEscape(secret)} {
			u, err := url.Parse(before + s + after)
			if err == nil && known(u.Scheme) && shows(u.Host+"/"+u.Path+u.Opaque) {
				continue
			}
			if text := Redact(before + s + after); shows(text) {
				t.Errorf("Redact(%q) = %q", before+s+after, text)
			}
		}
	})
}
