//go:build goexperiment.runtimesecret

package keys

import "runtime/secret"

// confine runs f so that the registers, stack and heap it used are erased.
func confine(f func() error) (err error) {
	secret.Do(func() { err = f() })
	return err
}
