//go:build !race

package sbqueue_test

const scale = 1
