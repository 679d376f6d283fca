package keys_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/keys/keytest"
	"github.com/queue-runtime/queue/spec"
)

// Sender keys, check values and message keys are those of the specification.
func TestVectors(t *testing.T) {
	list, err := spec.Vectors()
	if err != nil {
		t.Fatal(err)
	}
	opened, refused := 0, 0
	for _, v := range list {
		if v.Layer == spec.LayerParse {
			continue
		}
		k, err := keys.New("k", v.Key, nil)
		if v.Layer == spec.LayerKey {
			if !errors.Is(err, keys.ErrInvalidKey) {
				t.Errorf("%s: %v, want ErrInvalidKey", v.Name, err)
			}
			refused++
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if v.Expect != spec.Open {
			continue
		}
		opened++
		if got, err := k.CheckValue(); err != nil || !bytes.Equal(got[:], v.CheckValue) {
			t.Errorf("%s: check value %x, %v, want %x", v.Name, got, err, v.CheckValue)
		}
		// The salt stands before the commitment, in the header, which ends the
		// first part of the additional data.
		n := int(v.AdditionalData[14])<<8 | int(v.AdditionalData[15])
		salt := v.AdditionalData[16+n-64 : 16+n-32]
		info := slices.Concat([]byte("QRE1/A256GCM-HKDF-SHA256-COMMIT/v1\x00"), []byte{byte(len(v.KeyID))}, []byte(v.KeyID), salt)
		all := []*keys.Key{k}
		if v.SenderID != "" {
			given, err := keys.NewSender("k", v.SenderID, v.SenderKey, nil)
			if err != nil {
				t.Fatal(err)
			}
			made, err := k.Sender(v.SenderID)
			if err != nil {
				t.Fatal(err)
			}
			if !made.Equal(given) || !made.Alike(given) {
				t.Errorf("%s: the sender key that is made is not the one recorded", v.Name)
			}
			all = append(all, given, made)
		}
		for _, k := range all {
			if okm, err := k.Derive(v.SenderID, info); err != nil || !bytes.Equal(okm[:32], v.MessageKey) {
				t.Errorf("%s: %s: message key %x, %v, want %x", v.Name, k, okm[:32], err, v.MessageKey)
			}
		}
	}
	if opened < 30 || refused == 0 {
		t.Errorf("%d vectors opened, %d keys refused: too few", opened, refused)
	}
}

// A sender key is neither a master key nor the key of another sender.
func TestSenderKey(t *testing.T) {
	o := &keys.Options{Created: time.Unix(1, 0), Expires: time.Unix(2, 0), Queues: []string{"b", "a"}}
	secret := bytes.Repeat([]byte{7}, keys.Size)
	master, err := keys.New("k", secret, o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := master.Sender("router")
	if err != nil {
		t.Fatal(err)
	}
	if s.ID() != "k" || s.SenderID() != "router" || master.SenderID() != "" || !s.Created().Equal(o.Created) || !s.Expires().Equal(o.Expires) || !slices.Equal(s.Queues(), []string{"a", "b"}) {
		t.Errorf("%s: sender %q, %v, %v, %q", s, s.SenderID(), s.Created(), s.Expires(), s.Queues())
	}
	if got, want := s.String(), "keys.Key(k@router)"; got != want {
		t.Errorf("printed as %s, want %s", got, want)
	}
	for name, err := range map[string]error{
		"another sender": errorOf(s.Derive("router2", nil)),
		"no sender":      errorOf(s.Derive("", nil)),
		"a sender key":   errorOf(s.Sender("router")),
		"check value":    errorOf(s.CheckValue()),
	} {
		if !errors.Is(err, keys.ErrSenderKey) || !strings.Contains(err.Error(), "router") {
			t.Errorf("%s of a sender key: %v, want ErrSenderKey", name, err)
		}
	}
	// With the same secret, a master key and a sender key are two keys, which
	// derive two secrets.
	same, err := keys.NewSender("k", "router", secret, o)
	if err != nil {
		t.Fatal(err)
	}
	if same.Equal(master) || same.Equal(s) || same.Alike(master) {
		t.Error("a master key taken for a sender key equals it")
	}
	a, errA := same.Derive("router", nil)
	b, errB := master.Derive("router", nil)
	if errA != nil || errB != nil || a == b {
		t.Errorf("a master key taken for a sender key derives the same: %v, %v", errA, errB)
	}
	for _, sender := range []string{"", "a b", strings.Repeat("s", 65)} {
		if k, err := master.Sender(sender); !errors.Is(err, keys.ErrInvalidKey) || k != nil {
			t.Errorf("sender %q: %v", sender, err)
		}
		if k, err := keys.NewSender("k", sender, secret, nil); !errors.Is(err, keys.ErrInvalidKey) || k != nil {
			t.Errorf("sender %q: %v", sender, err)
		}
	}
	if _, err := master.Derive(strings.Repeat("s", 64), nil); err != nil {
		t.Errorf("the longest sender ID: %v", err)
	}
	if _, err := master.Derive(strings.Repeat("s", 65), nil); !errors.Is(err, keys.ErrInvalidKey) {
		t.Errorf("a long sender ID: %v", err)
	}
	if leak := keytest.Leak(fmt.Sprintf("%v %+v %#v", s, s, s), secret); leak != "" {
		t.Errorf("printed: %s", leak)
	}
	master.Destroy()
	if _, err := s.Derive("router", nil); err != nil {
		t.Errorf("a sender key ends with its master key: %v", err)
	}
	for name, err := range map[string]error{
		"Derive":     errorOf(master.Derive("router", nil)),
		"Sender":     errorOf(master.Sender("router")),
		"CheckValue": errorOf(master.CheckValue()),
		"Expand":     errorOf(master.Expand(nil)),
	} {
		if !errors.Is(err, keys.ErrDestroyed) {
			t.Errorf("%s of a destroyed key: %v", name, err)
		}
	}
}

func errorOf[T any](_ T, err error) error { return err }

func TestExpandReserved(t *testing.T) {
	k := mustKey(t, "k", 1)
	for _, info := range []string{"QRE1/", "QRE1/check/v1\x00", "QRE1/sender/v1\x00\x00"} {
		if okm, err := k.Expand([]byte(info)); err == nil || okm != [64]byte{} {
			t.Errorf("%q: no error", info)
		}
	}
	if _, err := k.Expand([]byte("QRE1")); err != nil {
		t.Error(err)
	}
}

func TestQueues(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, keys.Size)
	many := make([]string, 257)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for name, list := range map[string][]string{
		"empty": {""}, "long": {strings.Repeat("q", 256)}, "not UTF-8": {"\xff"}, "twice": {"a", "b", "a"}, "many": many,
	} {
		if k, err := keys.New("k", secret, &keys.Options{Queues: list}); !errors.Is(err, keys.ErrInvalidKey) || k != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	many[0] = strings.Repeat("q", 255)
	if _, err := keys.New("k", secret, &keys.Options{Queues: many[:256]}); err != nil {
		t.Errorf("as many queues as there may be, one with the longest name: %v", err)
	}
	list := []string{"orders", "b"}
	k, err := keys.New("k", secret, &keys.Options{Queues: list})
	if err != nil {
		t.Fatal(err)
	}
	list[0] = "changed"
	k.Queues()[0] = "changed"
	if !k.For("orders") || !k.For("b") || k.For("changed") || k.For("") || k.For("order") {
		t.Errorf("for %q", k.Queues())
	}
	free, err := keys.New("k", secret, &keys.Options{Queues: []string{}})
	if err != nil || !free.For("anything") || free.Queues() != nil {
		t.Errorf("%v, for %q", err, free.Queues())
	}
	if free.Alike(k) || !free.Equal(k) {
		t.Error("queues are compared by Equal, or not by Alike")
	}
}
