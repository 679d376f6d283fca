//go:build race

package sqlitequeue_test

// scale divides the work of the long tests where the race detector slows
// SQLite, which is Go here, by ten. Without it they run whole.
const scale = 4
