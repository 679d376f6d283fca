//go:build !race

package sbqueue_test

import "time"

const (
	scale = 1
	slack = 100 * time.Millisecond
)
