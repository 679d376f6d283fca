//go:build !race

package sqlitequeue_test

const scale = 1
