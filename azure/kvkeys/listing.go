package kvkeys

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/queue-runtime/queue/keys"
)

// Tags of a secret, or of a version of it, that is a key.
const (
	Tag   = "qrt-key"    // Valid or Current
	TagID = "qrt-key-id" // the key ID, with the layout Versions
)

// Values of [Tag].
const (
	Valid   = "valid"   // opens
	Current = "current" // opens and seals
)

// maxPages bounds a list. Key Vault answers 25 at a time.
const maxPages = 400

// entry is what is known of a key without its value.
type entry struct {
	id       keys.ID // empty if there is none
	secret   string
	version  string
	tag      string
	disabled bool

	created, notBefore time.Time // zero means unknown, none
}

// newer orders keys that are current. A tie is broken by ID, so that all senders
// decide alike.
func (e *entry) newer(than *entry) bool {
	if !e.created.Equal(than.created) {
		return e.created.After(than.created)
	}
	return e.id > than.id
}

// entryOf reads what the SDK has, any of which may be missing.
func entryOf(id *azsecrets.ID, a *azsecrets.SecretAttributes, tags map[string]*string) *entry {
	e := &entry{tag: tagOf(tags, Tag)}
	if id != nil {
		if u, err := url.Parse(string(*id)); err == nil {
			parts := strings.Split(strings.Trim(u.Path, "/"), "/")
			if len(parts) > 1 {
				e.secret = parts[1]
			}
			if len(parts) > 2 {
				e.version = parts[2]
			}
		}
	}
	if a != nil {
		e.disabled = a.Enabled != nil && !*a.Enabled
		e.created, e.notBefore = timeOf(a.Created), timeOf(a.NotBefore)
	}
	return e
}

func tagOf(tags map[string]*string, name string) string {
	if v := tags[name]; v != nil {
		return *v
	}
	return ""
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// usable says why there is a secret and no key.
func (p *Provider) usable(at place, e *entry) error {
	switch {
	case e.disabled:
		return p.failed(at, Disabled, "it is disabled: enable it, if messages under it are still to be opened")
	case e.tag == "":
		return p.failed(at, Unmarked, "it is not marked as a key: give it the tag %s=%s, or %s=%s to seal with it", Tag, Valid, Tag, Current)
	case e.tag != Valid && e.tag != Current:
		return p.failed(at, Unmarked, "its tag %s has another value than %s and %s", Tag, Valid, Current)
	}
	return nil
}

// root is the secret that a failure of a list is about, "" for the vault.
func (p *Provider) root() string {
	if p.layout == Versions {
		return p.name
	}
	return ""
}

// list returns what is marked as a key, disabled ones included. That there is
// none at all is an error: it is more likely a wrong name than a wish.
func (p *Provider) list(ctx context.Context) ([]*entry, error) {
	at := place{secret: p.root()}
	var all []*entry
	var err error
	if p.layout == Versions {
		all, err = p.versionsOf(ctx, at)
	} else {
		pager := p.client.NewListSecretPropertiesPager(nil)
		all, err = pages(ctx, p, at, pager, func(r azsecrets.ListSecretPropertiesResponse) []*azsecrets.SecretProperties { return r.Value })
		for _, e := range all {
			e.id = keyOf(p.name, e.secret)
		}
	}
	if err != nil {
		return nil, err
	}
	marked := all[:0]
	for _, e := range all {
		if e.id != "" && (e.tag == Valid || e.tag == Current) {
			marked = append(marked, e)
		}
	}
	if len(marked) == 0 {
		what := "no version"
		if p.layout == Secrets {
			what = "no secret"
			if p.name != "" {
				what += " whose name begins " + p.name + separator
			}
		}
		return nil, p.failed(at, Unmarked, "%s has the tag %s: check the name, or tag a key with %s=%s", what, Tag, Tag, Current)
	}
	return marked, nil
}

// versionsOf returns the versions of one secret, by the ID in their tag.
func (p *Provider) versionsOf(ctx context.Context, at place) ([]*entry, error) {
	pager := p.client.NewListSecretPropertiesVersionsPager(at.secret, nil)
	return pages(ctx, p, at, pager, func(r azsecrets.ListSecretPropertiesVersionsResponse) []*azsecrets.SecretProperties { return r.Value })
}

// pages reads a list to its end.
func pages[T any](ctx context.Context, p *Provider, at place, pager *runtime.Pager[T], items func(T) []*azsecrets.SecretProperties) ([]*entry, error) {
	var all []*entry
	for n := 0; pager.More(); n++ {
		if n == maxPages {
			return nil, p.failed(at, Unavailable, "the list has more than %d pages: give the keys a vault of their own, or use the layout Versions", maxPages)
		}
		var page T
		err := p.ask(ctx, at, actionList, func() (err error) {
			page, err = pager.NextPage(ctx)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, s := range items(page) {
			if s == nil {
				continue
			}
			e := entryOf(s.ID, s.Attributes, s.Tags)
			if id := keys.ID(tagOf(s.Tags, TagID)); id.Validate() == nil {
				e.id = id
			}
			all = append(all, e)
		}
	}
	return all, nil
}
