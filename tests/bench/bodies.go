package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/queue-runtime/queue/testbed/webhooks"
)

// corpus are the bodies that are sent, in turns.
type corpus struct {
	bodies [][]byte
	source string
}

// loadCorpus reads real webhooks out of the module cache, or makes bodies of their sizes
// if they cannot be had.
func loadCorpus(ctx context.Context) (*corpus, error) {
	dir, err := webhooks.Folder(ctx)
	if err != nil {
		return madeCorpus(), nil
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return madeCorpus(), nil
	}
	slices.Sort(files)
	c := &corpus{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		c.bodies = append(c.bodies, b)
	}
	c.source = fmt.Sprintf("%d real GitHub webhooks (the test data of go-playground/webhooks), %d bytes on average", len(files), c.average())
	return c, nil
}

// webhookSizes are the sizes of every sixth of the real webhooks, ascending, in bytes.
var webhookSizes = []int{455, 3_500, 6_500, 7_800, 8_200, 9_800, 12_500, 18_500}

// madeCorpus makes JSON of the sizes of webhooks.
func madeCorpus() *corpus {
	c := &corpus{}
	for _, size := range webhookSizes {
		var fields []map[string]any
		body := []byte("[]")
		for i := 0; len(body) < size; i++ {
			fields = append(fields, map[string]any{"id": i * 7919, "login": fmt.Sprint("user-", i*31), "type": "User", "site_admin": false})
			body, _ = json.Marshal(fields) // maps of strings and numbers always marshal
		}
		c.bodies = append(c.bodies, body)
	}
	c.source = fmt.Sprintf("bodies made in the sizes of GitHub webhooks, which are not in the module cache, %d bytes on average", c.average())
	return c
}

func (c *corpus) average() int {
	total := 0
	for _, b := range c.bodies {
		total += len(b)
	}
	return total / len(c.bodies)
}

func (c *corpus) body(i int) []byte { return c.bodies[i%len(c.bodies)] }
