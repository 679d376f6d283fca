package smkeys

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/keys/keytest"
	"github.com/queue-runtime/queue/testbed/awspeer"
)

func TestMain(m *testing.M) {
	code := m.Run()
	awspeer.Stop()
	os.Exit(code)
}

// A second opinion of the service's protocol, where moto_server is installed.
func TestSuiteMoto(t *testing.T) {
	cfg := awspeer.Config(awspeer.Moto(t))
	client := secretsmanager.NewFromConfig(cfg, func(o *secretsmanager.Options) { o.HTTPClient = httpclient.PlainBodies{Doer: o.HTTPClient} })
	keytest.Run(t, keytest.Options{Open: func(t *testing.T, c keytest.Content) keytest.Backing {
		name := "qrt/" + rand.Text()
		var there []keys.ID
		made := map[string]bool{}
		put := func(secret, value string) error {
			if made[secret] {
				_, err := client.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: aws.String(secret), SecretString: aws.String(value)})
				return err
			}
			made[secret] = true
			_, err := client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(secret), SecretString: aws.String(value)})
			return err
		}
		fill := func(c keytest.Content) error {
			for _, m := range c.Keys {
				if err := put(name+"/"+string(m.ID), jsonKey(m)); err != nil {
					return err
				}
			}
			b, err := json.Marshal(pointer{Current: c.Current, Valid: ids(c)})
			if err != nil {
				return err
			}
			// Twice: otherwise AWSPREVIOUS would keep what is to be retired.
			for range 2 {
				if err := put(name, string(b)); err != nil {
					return err
				}
			}
			for _, id := range there {
				if !slices.Contains(ids(c), id) {
					delete(made, name+"/"+string(id))
					if _, err := client.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{
						SecretId: aws.String(name + "/" + string(id)), ForceDeleteWithoutRecovery: aws.Bool(true)}); err != nil {
						return err
					}
				}
			}
			there = ids(c)
			return nil
		}
		if err := fill(c); err != nil {
			t.Fatal(err)
		}
		p, err := New(cfg, name, nil)
		if err != nil {
			t.Fatal(err)
		}
		b := keytest.Backing{Provider: p, Replace: fill}
		if strings.HasSuffix(t.Name(), "/rotation_in_use") {
			b.Replace = nil // thousands of calls, which moto takes long for; TestSuite has this case
		}
		return b
	}})
}
