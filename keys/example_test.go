package keys_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/queue-runtime/queue/keys"
)

// A ring is rotated while it is in use.
func ExampleRing() {
	ctx := context.Background()
	old, err := keys.Generate("orders-2026-01", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ring, err := keys.NewRing(old)
	if err != nil {
		fmt.Println(err)
		return
	}
	next, err := keys.Generate("orders-2026-02", &keys.Options{Expires: time.Now().AddDate(0, 1, 0)})
	if err != nil {
		fmt.Println(err)
		return
	}
	// First every receiver knows the new key, then it seals, and when nothing
	// sealed under the old one can come back any more, that is destroyed.
	for _, step := range []func() error{
		func() error { return ring.Add(next) },
		func() error { return ring.SetCurrent("orders-2026-02") },
		func() error { return ring.Remove("orders-2026-01") },
	} {
		if err := step(); err != nil {
			fmt.Println(err)
			return
		}
		current, err := ring.CurrentKeyID(ctx)
		fmt.Println(current, ring.IDs(), err)
	}
	_, err = old.Derive("", []byte("anything"))
	fmt.Println(err)
	_, err = ring.GetKey(ctx, "orders-2026-01")
	fmt.Println(errors.Is(err, keys.ErrNotFound))
	// Output:
	// orders-2026-01 [orders-2026-01 orders-2026-02] <nil>
	// orders-2026-02 [orders-2026-01 orders-2026-02] <nil>
	// orders-2026-02 [orders-2026-02] <nil>
	// keys: key destroyed: orders-2026-01
	// true
}

// A key file is made and rotated by UpdateFile, and followed by File.
func ExampleFile() {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "keys.json")
	add := func(id keys.ID) error {
		k, err := keys.Generate(id, nil)
		if err != nil {
			return err
		}
		defer k.Destroy()
		return keys.UpdateFile(path, func(s *keys.Set) error {
			s.Keys = append(s.Keys, k)
			s.Current = id
			return nil
		})
	}
	if err := add("2026-01"); err != nil {
		fmt.Println(err)
		return
	}
	file, err := keys.OpenFile(path, &keys.FileOptions{CheckEvery: time.Nanosecond})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(file.CurrentKeyID(context.Background()))
	if err := add("2026-02"); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(file.CurrentKeyID(context.Background()))
	key, err := file.GetKey(context.Background(), "2026-01")
	fmt.Println(key, err)
	// Output:
	// 2026-01 <nil>
	// 2026-02 <nil>
	// keys.Key(2026-01) <nil>
}
