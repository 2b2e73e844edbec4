package cell

import "k8s.io/apimachinery/pkg/runtime"

// Judge is a Companion that says, when a tenant writes an object, what becomes of it.
type Judge interface {
	// Judge returns what the client is warned of, for the object is stored and not
	// carried out as it says, or an error whose text says why it is refused. It is
	// called for objects of custom kinds, Services and PersistentVolumeClaims, while a
	// request waits, and does not change them.
	Judge(object runtime.Object) (warnings []string, err error)
}

// judge asks the companion that runs. Without one everything is taken: what a companion
// refuses it does not carry out later either.
func (h *hosted) judge(object runtime.Object) ([]string, error) {
	if c := h.companionNow(h.ctx); c != nil {
		if j, ok := (*c).(Judge); ok {
			return j.Judge(object)
		}
	}
	return nil, nil
}
