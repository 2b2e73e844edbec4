// Package policy says what a tenant may ask for and whom its pods may reach.
//
// Pods: [CheckPod] judges a pod as the tenant wrote it (at the tenant's
// admission, so that the user reads the reason at once) and [CheckHostPod] the
// pod that is about to run for it on the host. Both apply our own rules and the
// upstream Pod Security evaluator at the newest version, and both refuse every
// field that nobody has decided about: a new Kubernetes release cannot open a
// hole by adding a field.
//
// Network: a [Cluster] and a tenant's [Fence] describe who may reach whom, once.
// Package reach gives the description its meaning; the agent renders it to
// nftables, package calico to the objects of a cluster that runs Calico.
//
// The package is pure. It never talks to an API or the kernel and never panics
// on what a tenant wrote.
package policy
