package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// fields names the fields of a type that somebody has decided about: each is
// either judged by a rule here, judged by upstream's Pod Security checks, or
// harmless because it stays inside the pod's sandbox or because the syncer
// replaces it. A field of a future Kubernetes that is missing here is refused.
type fields map[string]bool

func decided(names ...string) fields {
	f := fields{}
	for _, n := range names {
		f[n] = true
	}
	return f
}

var podSpecFields = decided(
	// judged
	"Volumes", "InitContainers", "Containers", "EphemeralContainers", "HostNetwork", "HostPID", "HostIPC",
	"SecurityContext", "NodeName", "PriorityClassName", "RuntimeClassName", "HostUsers", "ResourceClaims", "OS",
	// inside the pod's sandbox
	"RestartPolicy", "TerminationGracePeriodSeconds", "ActiveDeadlineSeconds", "ShareProcessNamespace", "Hostname",
	"Subdomain", "HostAliases", "EnableServiceLinks", "SetHostnameAsFQDN", "HostnameOverride", "Resources",
	// replaced, translated or left out by the syncer; forced by the host
	"DNSPolicy", "DNSConfig", "NodeSelector", "ServiceAccountName", "DeprecatedServiceAccount",
	"AutomountServiceAccountToken", "ImagePullSecrets", "Affinity", "SchedulerName", "Tolerations", "Priority",
	"ReadinessGates", "PreemptionPolicy", "Overhead", "TopologySpreadConstraints", "SchedulingGates",
)

var podSecurityContextFields = decided(
	// judged here or by Pod Security
	"SELinuxOptions", "WindowsOptions", "RunAsUser", "RunAsNonRoot", "Sysctls", "SeccompProfile", "AppArmorProfile",
	// inside the pod's sandbox
	"RunAsGroup", "SupplementalGroups", "SupplementalGroupsPolicy", "FSGroup", "FSGroupChangePolicy", "SELinuxChangePolicy",
)

var containerFields = decided(
	// judged
	"Ports", "VolumeMounts", "LivenessProbe", "ReadinessProbe", "StartupProbe", "Lifecycle", "SecurityContext", "Resources",
	// inside the pod's sandbox; VolumeDevices name a volume, and volumes are judged
	"Name", "Image", "Command", "Args", "WorkingDir", "ResizePolicy", "RestartPolicy", "RestartPolicyRules",
	"VolumeDevices", "TerminationMessagePath", "TerminationMessagePolicy", "ImagePullPolicy", "Stdin", "StdinOnce", "TTY",
	// translated by the syncer
	"Env", "EnvFrom",
)

var securityContextFields = decided(
	// judged here or by Pod Security
	"Capabilities", "Privileged", "SELinuxOptions", "WindowsOptions", "RunAsUser", "RunAsNonRoot",
	"AllowPrivilegeEscalation", "ProcMount", "SeccompProfile", "AppArmorProfile",
	// inside the pod's sandbox
	"RunAsGroup", "ReadOnlyRootFilesystem",
)

// volumeTypes are the volumes that work for tenants now: all others reach for
// something outside the tenant's own host namespace. An image is read-only, and what a
// pod may run it may read.
var volumeTypes = decided("Image", "ConfigMap", "Secret", "Projected", "DownwardAPI", "EmptyDir", "PersistentVolumeClaim", "Ephemeral")

// undecided refuses the set fields of the struct v points to that are not in f.
func (c *check) undecided(path string, v any, f fields) {
	for _, name := range set(v, f) {
		c.refuse("unknown-field", path+"."+name, "the field is not supported: remove it")
	}
}

// volumes refuses all types of volumes that are not in volumeTypes.
func (c *check) volumes(volumes []corev1.Volume) {
	for i := range volumes {
		path := fmt.Sprintf("spec.volumes[%d]", i)
		for _, name := range set(&volumes[i].VolumeSource, volumeTypes) {
			if csi := volumes[i].CSI; name == "csi" && len(c.offer.CSIDrivers) > 0 {
				c.inline(path+".csi", csi)
				continue
			}
			c.volume(path+"."+name, name)
		}
	}
}

// podInfo begins the attributes of an inline volume by which the kubelet tells the driver
// whose pod it is.
const podInfo = "csi.storage.k8s.io/"

// inline judges an inline volume of a CSI driver.
func (c *check) inline(field string, v *corev1.CSIVolumeSource) {
	if !slices.Contains(c.offer.CSIDrivers, v.Driver) {
		c.refuse("csi-driver", field+".driver", "the driver %q is not offered: use one of %q", v.Driver, c.offer.CSIDrivers)
	}
	for key := range v.VolumeAttributes {
		if strings.HasPrefix(key, podInfo) {
			c.refuse("csi-attributes", field+".volumeAttributes", "%q is what the node tells the driver of the pod: remove it", key)
			return
		}
	}
}

func (c *check) volume(field, name string) {
	switch name {
	case "hostPath":
		c.refuse("host-path", field, "files of the host belong to all tenants: use emptyDir, configMap, secret or projected")
	default:
		c.refuse("volume-type", field, "volumes of type %s are not offered: use persistentVolumeClaim, ephemeral, configMap, secret, projected, downwardAPI, image or emptyDir", name)
	}
}

// set returns the JSON names of the non-zero fields of the struct v points to
// that are not in f.
func set(v any, f fields) []string {
	var names []string
	value := reflect.ValueOf(v).Elem()
	for i := range value.NumField() {
		if value.Field(i).IsZero() {
			continue
		}
		field := value.Type().Field(i)
		if f[field.Name] {
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			name = field.Name
		}
		names = append(names, name)
	}
	return names
}
