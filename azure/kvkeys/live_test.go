package kvkeys

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/keys/keytest"
)

// The suite against a vault that is filled through the SDK, as administrators do
// it, over loopback.
func TestSuiteThroughSDK(t *testing.T) {
	for name, layout := range map[string]Layout{"secrets": Secrets, "versions": Versions} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			throughSDK(t, vaultURL, identity{}, v.options(layout))
		})
	}
}

// The same against a real vault. The identity needs the role Key Vault Secrets
// Officer there. Secrets whose names begin with qrt-test are made and deleted.
func TestLive(t *testing.T) {
	url := os.Getenv("KEYVAULT_URL")
	if url == "" {
		t.Skip("KEYVAULT_URL is not set: the live run needs a vault, such as https://NAME.vault.azure.net")
	}
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, layout := range map[string]Layout{"secrets": Secrets, "versions": Versions} {
		t.Run(name, func(t *testing.T) { throughSDK(t, url, credential, &Options{Layout: layout}) })
	}
}

func throughSDK(t *testing.T, url string, credential azcore.TokenCredential, o *Options) {
	client, err := azsecrets.NewClient(url, credential, o.Client)
	if err != nil {
		t.Fatal(err)
	}
	keytest.Run(t, keytest.Options{
		NoTimes: true, // Key Vault itself says when a version was made
		Open: func(t *testing.T, c keytest.Content) keytest.Backing {
			a := &administrator{t: t, client: client, layout: o.Layout, name: "qrt-test-" + strings.ToLower(rand.Text()), have: make(map[string][]put)}
			t.Cleanup(a.clean)
			if err := a.fill(c); err != nil {
				t.Fatal(err)
			}
			p, err := New(url, credential, a.name, o)
			if err != nil {
				t.Fatal(err)
			}
			b := keytest.Backing{Provider: p, Replace: a.fill}
			if strings.HasSuffix(t.Name(), "/rotation_in_use") {
				b.Replace = nil // thousands of requests; TestSuite has this case
			}
			return b
		},
	})
}

// administrator changes a vault through the SDK, a step at a time.
type administrator struct {
	t      *testing.T
	client *azsecrets.Client
	layout Layout
	name   string
	have   map[string][]put // by secret, oldest first
}

// put is a version that was put into a secret.
type put struct {
	id             keys.ID
	version, value string
}

// fill makes the vault hold c. The current key comes first, so that there is one
// at any time.
func (a *administrator) fill(c keytest.Content) error {
	ctx := a.t.Context()
	all := slices.Clone(c.Keys)
	slices.SortStableFunc(all, func(x, y keytest.Material) int {
		switch {
		case x.ID == c.Current:
			return -1
		case y.ID == c.Current:
			return 1
		}
		return 0
	})
	kept := make(map[string]bool) // versions
	for _, m := range all {
		secret := a.name
		if a.layout == Secrets {
			var err error
			if secret, err = SecretName(a.name, m.ID); err != nil {
				return err
			}
		}
		tags := map[string]*string{Tag: to.Ptr(Valid), TagID: to.Ptr(string(m.ID))}
		if m.ID == c.Current {
			tags[Tag] = to.Ptr(Current)
		}
		value := base64.StdEncoding.EncodeToString(m.Secret)
		i := slices.IndexFunc(a.have[secret], func(p put) bool { return p.id == m.ID && p.value == value })
		if i < 0 || a.layout == Secrets && i != len(a.have[secret])-1 {
			r, err := a.client.SetSecret(ctx, secret, azsecrets.SetSecretParameters{Value: &value, Tags: tags}, nil)
			if err != nil {
				return err
			}
			a.have[secret] = append(a.have[secret], put{m.ID, r.ID.Version(), value})
			kept[r.ID.Version()] = true
			continue
		}
		version := a.have[secret][i].version
		kept[version] = true
		if err := a.update(ctx, secret, version, true, tags); err != nil {
			return err
		}
	}
	for secret, versions := range a.have {
		for _, p := range versions {
			if !kept[p.version] {
				if err := a.update(ctx, secret, p.version, false, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (a *administrator) update(ctx context.Context, secret, version string, enabled bool, tags map[string]*string) error {
	_, err := a.client.UpdateSecretProperties(ctx, secret, version, azsecrets.UpdateSecretPropertiesParameters{
		SecretAttributes: &azsecrets.SecretAttributes{Enabled: &enabled}, Tags: tags,
	}, nil)
	return err
}

func (a *administrator) clean() {
	for secret := range a.have {
		if _, err := a.client.DeleteSecret(context.WithoutCancel(a.t.Context()), secret, nil); err != nil {
			a.t.Errorf("%s stays in the vault: %v", secret, err)
		}
	}
}
