package tenant

import (
	"strconv"
	"strings"
)

// Rank is a pod's place among the pods of its own tenant. To the host all tenants' pods
// without a PriorityClass of their plan have one priority: no rank raises a pod above
// another tenant's.
type Rank struct {
	// Priority is the tenant's, by its own PriorityClasses; greater is more important.
	Priority int32
	// Patient pods wait for room, and displace no others (preemptionPolicy: Never).
	Patient bool
}

const patient = "Never"

// String returns the value of [AnnotationRank]; "" for the rank of a pod that asked for
// none, which needs no annotation.
func (r Rank) String() string {
	switch {
	case r == Rank{}:
		return ""
	case r.Patient:
		return strconv.Itoa(int(r.Priority)) + "," + patient
	default:
		return strconv.Itoa(int(r.Priority))
	}
}

// ReadRank returns the rank in a host pod's annotations. What is none is the rank of a
// pod that asked for none.
func ReadRank(annotations map[string]string) Rank {
	number, policy, _ := strings.Cut(annotations[AnnotationRank], ",")
	priority, err := strconv.ParseInt(number, 10, 32)
	if err != nil || policy != "" && policy != patient {
		return Rank{}
	}
	return Rank{Priority: int32(priority), Patient: policy == patient}
}
