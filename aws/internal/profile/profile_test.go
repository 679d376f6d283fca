package profile

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// A credentials file that is rotated is read again within RereadEvery, and at once after a
// refusal. While it is cut or gone, what was read last is used.
func TestRotatedFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	for name, value := range map[string]string{
		"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_CONFIG_FILE": filepath.Join(t.TempDir(), "none"), "AWS_PROFILE": "", "AWS_ACCESS_KEY_ID": "",
		"AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func(id string) string {
		return "[default]\naws_access_key_id = " + id + "\naws_secret_access_key = secret\n"
	}
	synctest.Test(t, func(t *testing.T) {
		write(key("FIRST"))
		cfg, err := Load(t.Context(), "us-east-1")
		if err != nil {
			t.Fatal(err)
		}
		want := func(id string) {
			t.Helper()
			c, err := cfg.Credentials.Retrieve(t.Context())
			if err != nil || c.AccessKeyID != id {
				t.Errorf("credentials %s, %v, want %s", c.AccessKeyID, err, id)
			}
		}
		want("FIRST")
		write(key("SECOND"))
		time.Sleep(RereadEvery + time.Second)
		want("SECOND")
		write(key("THIRD"))
		cfg.Credentials.(*aws.CredentialsCache).Invalidate()
		want("THIRD")
		for _, broken := range []string{"", "[default]\naws_access_key_id = FOURTH\n", "[defau"} {
			write(broken)
			time.Sleep(RereadEvery + time.Second)
			want("THIRD")
		}
		write(key("FIFTH"))
		time.Sleep(RereadEvery + time.Second)
		want("FIFTH")
		// The file is gone, and the chain would take another identity.
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		t.Setenv("AWS_ACCESS_KEY_ID", "OTHER")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
		time.Sleep(RereadEvery + time.Second)
		want("FIFTH")
	})
}

// A role is assumed with the credentials that the file has at the time, also after the
// file was rotated, and with the last ones while it is cut or gone.
func TestRoleOfARotatedFile(t *testing.T) {
	// The server answers with a key whose ID says with which one the role was assumed.
	var refused atomic.Pointer[string]
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, id, _ := strings.Cut(q.Header.Get("Authorization"), "Credential=")
		id, _, _ = strings.Cut(id, "/")
		if old := refused.Load(); old != nil && *old == id {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `<ErrorResponse><Error><Code>InvalidClientTokenId</Code><Message>no such key</Message></Error></ErrorResponse>`)
			return
		}
		fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>ROLE-BY-%s</AccessKeyId>`+
			`<SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
			id, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	dir := t.TempDir()
	file, conf := filepath.Join(dir, "credentials"), filepath.Join(dir, "config")
	for name, value := range map[string]string{
		"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_CONFIG_FILE": conf, "AWS_PROFILE": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
		"AWS_SESSION_TOKEN": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL_STS": sts.URL,
	} {
		t.Setenv(name, value)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func(id string) string {
		return "[base]\naws_access_key_id = " + id + "\naws_secret_access_key = secret\n"
	}
	write(conf, "[default]\nrole_arn = arn:aws:iam::123456789012:role/worker\nsource_profile = base\n")
	write(file, key("FIRST"))
	cfg, err := Load(t.Context(), "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	want := func(id string) {
		t.Helper()
		c, err := cfg.Credentials.Retrieve(t.Context())
		if err != nil || c.AccessKeyID != id {
			t.Errorf("credentials %s, %v, want %s", c.AccessKeyID, err, id)
		}
	}
	over := func() { cfg.Credentials.(*aws.CredentialsCache).Invalidate() } // as after their hour, or a refusal
	want("ROLE-BY-FIRST")
	write(file, key("SECOND"))
	want("ROLE-BY-FIRST")
	first := "FIRST"
	refused.Store(&first)
	over()
	want("ROLE-BY-SECOND")
	for _, broken := range []string{"", "[base]\naws_access_key_id = THIRD\n", "[bas"} {
		write(file, broken)
		over()
		want("ROLE-BY-SECOND")
	}
	if err := os.Remove(conf); err != nil { // the chain would take another identity
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "OTHER")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	over()
	want("ROLE-BY-SECOND")
}

// Credentials of other sources are the SDK's affair.
func TestOtherSources(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "ENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	cfg, err := Load(t.Context(), "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil || c.AccessKeyID != "ENV" || c.CanExpire {
		t.Errorf("access key ID %+v, %v; want that of the environment, without expiry", c.AccessKeyID, err)
	}
}
