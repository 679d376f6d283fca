package profile

import (
	"fmt"
	"io"
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

// A role is assumed with the keys that the file has by then.
func TestRotatedKeysOfRole(t *testing.T) {
	folder := t.TempDir()
	file, config := filepath.Join(folder, "credentials"), filepath.Join(folder, "config")
	var accepted atomic.Value // the key that STS takes
	accepted.Store("FIRST")
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := accepted.Load().(string)
		if !strings.Contains(r.Header.Get("Authorization"), "Credential="+key+"/") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code><Message>no</Message></Error></ErrorResponse>`)
			return
		}
		_, _ = fmt.Fprintf(w, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ROLE-BY-%s</AccessKeyId><SecretAccessKey>s</SecretAccessKey>`+
			`<SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`, key, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	for name, value := range map[string]string{
		"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_CONFIG_FILE": config, "AWS_PROFILE": "app", "AWS_ACCESS_KEY_ID": "",
		"AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL_STS": sts.URL,
	} {
		t.Setenv(name, value)
	}
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys := func(id string) string {
		return "[base]\naws_access_key_id = " + id + "\naws_secret_access_key = secret\n"
	}
	write(config, "[profile app]\nrole_arn = arn:aws:iam::123456789012:role/app\nsource_profile = base\n")
	write(file, keys("FIRST"))
	cfg, err := Load(t.Context(), "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	want := func(id string) {
		t.Helper()
		c, err := cfg.Credentials.Retrieve(t.Context())
		if err != nil || c.AccessKeyID != id || !c.CanExpire {
			t.Errorf("credentials %s, %v, want %s", c.AccessKeyID, err, id)
		}
	}
	expire := cfg.Credentials.(*aws.CredentialsCache).Invalidate
	want("ROLE-BY-FIRST")
	write(file, keys("SECOND"))
	accepted.Store("SECOND")
	want("ROLE-BY-FIRST") // until they expire
	expire()
	want("ROLE-BY-SECOND")
	// While the file is being written the keys from before are used.
	write(file, "")
	expire()
	want("ROLE-BY-SECOND")
	// The file is gone, and the chain would take another identity.
	for _, file := range []string{file, config} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "OTHER")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	expire()
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
