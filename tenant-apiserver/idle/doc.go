// Package idle says whether a tenant's control plane may be stopped for a while, and
// when it has to run again by itself.
//
//	Read   lists the objects on which controllers wait for time
//	Judge  looks at them: busy, or idle until some moment
//
// Judge is a pure function of objects and time. It knows every controller of
// tenant-apiserver/internal/kube: one that waits for time (a schedule, a deadline, a
// time to live) gives the moment; one that is in the middle of something, or whose
// next step is not known here, makes the tenant busy. What controllers do when an
// object changes does not count: nothing changes objects while nobody is connected
// and the syncer has nothing to do, and that others look at.
//
// What controllers would put right for no reason that an object shows (a write that
// failed and is tried again, say) is done when the control plane is started: all of
// them look at everything then.
package idle
