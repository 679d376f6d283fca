package replay

import (
	"errors"
	"fmt"
)

// Validate says what in the request breaks its bounds, for stores to call first;
// nil when nothing does.
func (r *Request) Validate() error {
	if err := validate(r.Group, r.ID); err != nil {
		return err
	}
	switch {
	case r.Lease <= 0:
		return fmt.Errorf("replay: a lease of %v: use one above zero", r.Lease)
	case r.RetryWindow <= 0:
		return fmt.Errorf("replay: a retry window of %v: use one above zero", r.RetryWindow)
	case r.Now.IsZero():
		return errors.New("replay: a request without Now: set it to the receiver's clock")
	}
	return nil
}

func validate(group string, id ID) error {
	if len(group) < 1 || len(group) > MaxGroup {
		return fmt.Errorf("replay: a group of %d bytes: use 1 to %d", len(group), MaxGroup)
	}
	if len(id) < 1 || len(id) > MaxID {
		return fmt.Errorf("replay: an ID of %d bytes: use 1 to %d", len(id), MaxID)
	}
	return nil
}
