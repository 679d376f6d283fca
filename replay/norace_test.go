//go:build !race

package replay_test

// slowdown is by how much the race detector slows counting loops down.
const slowdown = 1
