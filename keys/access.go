package keys

import (
	"fmt"
	"io/fs"
	"slices"
)

// accessRule says who may have access to a file of secrets beside its owner.
type accessRule uint8

const (
	ownerOrGroup  accessRule = iota // a group that the process is in may read what root owns
	worldReadable                   // every user may read
)

func ruleOf(o *FileOptions) accessRule {
	if o != nil && o.WorldReadable {
		return worldReadable
	}
	return ownerOrGroup
}

// fileAccess is what decides about access to a file, as Unix has it (POSIX.1-2024,
// Section 4.7).
type fileAccess struct {
	mode     fs.FileMode // permission bits
	uid, gid int         // of the file
	groups   []int       // of the process
}

// check refuses a file that others than its owner have access to, unless the rule allows
// it. Nothing allows others to write.
func (a fileAccess) check(rule accessRule) error {
	mode := a.mode.Perm()
	switch {
	case mode&0o077 == 0:
		return nil
	case mode&0o022 == 0 && rule == worldReadable:
		return nil
	case mode&0o037 == 0 && a.uid == 0 && slices.Contains(a.groups, a.gid):
		return nil // as Kubernetes mounts a Secret with fsGroup
	case mode&0o037 == 0 && a.uid != 0:
		return fmt.Errorf("%w: mode %04o lets its group in: run chmod 600 on it, or give it to root (the owner is user %d)", ErrUnavailable, mode, a.uid)
	case mode&0o037 == 0:
		return fmt.Errorf("%w: mode %04o lets group %d in, and this process is in groups %v: run chmod 600 on it, or let the process be in that group (fsGroup in Kubernetes)", ErrUnavailable, mode, a.gid, a.groups)
	}
	return fmt.Errorf("%w: mode %04o lets others than its owner in: run chmod 600 on it; a mounted Secret needs defaultMode 0440 and fsGroup", ErrUnavailable, mode)
}
