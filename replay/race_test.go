//go:build race

package replay_test

// slowdown is by how much the race detector slows counting loops down; they run
// so much shorter under it.
const slowdown = 10
