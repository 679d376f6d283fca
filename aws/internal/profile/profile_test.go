package profile

import (
	"os"
	"path/filepath"
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
