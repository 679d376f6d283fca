package demo

import "context"

func (r *run) attacks(context.Context) error { return nil }
