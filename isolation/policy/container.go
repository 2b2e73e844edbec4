package policy

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// containerAt is a container with its path in the pod.
type containerAt struct {
	path string
	*corev1.Container
}

// containers returns all of a pod's containers, of every sort. The ephemeral
// ones, whose type differs in name only, are seen as containers.
func containers(spec *corev1.PodSpec) []containerAt {
	var all []containerAt
	add := func(list string, i int, c *corev1.Container) {
		all = append(all, containerAt{fmt.Sprintf("spec.%s[%d]", list, i), c})
	}
	for i := range spec.InitContainers {
		add("initContainers", i, &spec.InitContainers[i])
	}
	for i := range spec.Containers {
		add("containers", i, &spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		add("ephemeralContainers", i, (*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return all
}

// container judges one container.
func (c *check) container(path string, ctr *corev1.Container) {
	for i, p := range ctr.Ports {
		if p.HostPort != 0 || p.HostIP != "" {
			c.refuse("host-ports", fmt.Sprintf("%s.ports[%d].hostPort", path, i), "ports of the node are shared by all tenants: remove hostPort and hostIP and use a Service")
		}
	}
	for i, m := range ctr.VolumeMounts {
		if m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationBidirectional {
			c.refuse("mount-propagation", fmt.Sprintf("%s.volumeMounts[%d].mountPropagation", path, i), "Bidirectional would put the pod's mounts on the host: use None or HostToContainer")
		}
	}
	if len(ctr.Resources.Claims) > 0 {
		c.refuse("resource-claims", path+".resources.claims", "devices of the host are not given to tenants: remove the claims")
	}
	c.probe(path+".livenessProbe", ctr.LivenessProbe)
	c.probe(path+".readinessProbe", ctr.ReadinessProbe)
	c.probe(path+".startupProbe", ctr.StartupProbe)
	if lc := ctr.Lifecycle; lc != nil {
		c.hook(path+".lifecycle.postStart", lc.PostStart)
		c.hook(path+".lifecycle.preStop", lc.PreStop)
	}
	c.securityContext(path+".securityContext", ctr.SecurityContext)
	c.undecided(path, ctr, containerFields)
}

// securityContext judges what upstream's baseline leaves open or what deserves
// the exact field in the answer.
func (c *check) securityContext(path string, sc *corev1.SecurityContext) {
	if sc == nil {
		return
	}
	if sc.Privileged != nil && *sc.Privileged {
		c.refuse("privileged", path+".privileged", "a privileged container could leave its sandbox: remove the field and add single capabilities where Pod Security allows them")
	}
	if sc.ProcMount != nil && *sc.ProcMount != corev1.DefaultProcMount {
		c.refuse("proc-mount", path+".procMount", "%q would unmask files of the kernel: remove the field", *sc.ProcMount)
	}
	c.profiles(path, sc.SeccompProfile, sc.AppArmorProfile)
	c.undecided(path, sc, securityContextFields)
}

// probe refuses probes that the node would send elsewhere than to the pod.
func (c *check) probe(path string, p *corev1.Probe) {
	if p == nil {
		return
	}
	c.dials(path, p.HTTPGet, p.TCPSocket)
}

func (c *check) hook(path string, h *corev1.LifecycleHandler) {
	if h == nil {
		return
	}
	c.dials(path, h.HTTPGet, h.TCPSocket)
}

func (c *check) dials(path string, get *corev1.HTTPGetAction, tcp *corev1.TCPSocketAction) {
	if get != nil && get.Host != "" {
		c.refuse("probe-host", path+".httpGet.host", "the node would connect to %q on the pod's behalf: remove the field, the pod's own address is used", get.Host)
	}
	if tcp != nil && tcp.Host != "" {
		c.refuse("probe-host", path+".tcpSocket.host", "the node would connect to %q on the pod's behalf: remove the field, the pod's own address is used", tcp.Host)
	}
}
