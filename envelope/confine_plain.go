//go:build !goexperiment.runtimesecret

package envelope

// confine runs f; see the file for GOEXPERIMENT=runtimesecret.
func confine(f func()) { f() }
