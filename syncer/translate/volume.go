package translate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

func (b *podBuilder) volumes(from []corev1.Volume) []corev1.Volume {
	var to []corev1.Volume
	for _, v := range from {
		if v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			to = append(to, corev1.Volume{Name: v.Name, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: b.claimVolume(v)}})
			continue
		}
		to = append(to, corev1.Volume{Name: v.Name, VolumeSource: b.volume(v.Name, v.VolumeSource)})
	}
	return to
}

// heldVolumes names the volumes of memory that the pod's sandbox may hold itself: those
// that containers mount whole, and without passing mounts on. Containers that a pod gets
// later change nothing: they cannot ask for a part of a volume (upstream's API).
func heldVolumes(spec *corev1.PodSpec) []string {
	var held []string
	for _, v := range spec.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory {
			held = append(held, v.Name)
		}
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, m := range c.VolumeMounts {
			if m.SubPath != "" || m.SubPathExpr != "" || m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
				held = slices.DeleteFunc(held, func(name string) bool { return name == m.Name })
			}
		}
	}
	return held
}

func (b *podBuilder) volume(name string, from corev1.VolumeSource) corev1.VolumeSource {
	var to corev1.VolumeSource
	switch {
	case from.EmptyDir != nil:
		to.EmptyDir = &corev1.EmptyDirVolumeSource{Medium: from.EmptyDir.Medium, SizeLimit: from.EmptyDir.SizeLimit}
	case from.ConfigMap != nil:
		f := from.ConfigMap
		to.ConfigMap = &corev1.ConfigMapVolumeSource{
			LocalObjectReference: b.local(f.LocalObjectReference), Items: f.Items, DefaultMode: f.DefaultMode, Optional: f.Optional,
		}
	case from.Secret != nil:
		f := from.Secret
		to.Secret = &corev1.SecretVolumeSource{
			SecretName: b.ref(f.SecretName), Items: f.Items, DefaultMode: f.DefaultMode, Optional: f.Optional,
		}
	case from.DownwardAPI != nil:
		f := from.DownwardAPI
		to.DownwardAPI = &corev1.DownwardAPIVolumeSource{Items: b.downwardFiles(f.Items), DefaultMode: f.DefaultMode}
	case from.Projected != nil:
		to.Projected = b.projected(name, from.Projected)
	case from.Image != nil:
		to.Image = &corev1.ImageVolumeSource{Reference: from.Image.Reference, PullPolicy: from.Image.PullPolicy}
	case from.CSI != nil:
		f := from.CSI
		to.CSI = &corev1.CSIVolumeSource{Driver: f.Driver, ReadOnly: f.ReadOnly, FSType: f.FSType, VolumeAttributes: f.VolumeAttributes}
		if f.NodePublishSecretRef != nil {
			to.CSI.NodePublishSecretRef = &corev1.LocalObjectReference{Name: b.ref(f.NodePublishSecretRef.Name)}
		}
	default: // nothing is set: the API means an empty directory
		to.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	return to
}

func (b *podBuilder) downwardFiles(from []corev1.DownwardAPIVolumeFile) []corev1.DownwardAPIVolumeFile {
	var to []corev1.DownwardAPIVolumeFile
	for _, f := range from {
		file := corev1.DownwardAPIVolumeFile{Path: f.Path, ResourceFieldRef: f.ResourceFieldRef, Mode: f.Mode}
		if f.FieldRef != nil {
			file.FieldRef = b.field(f.FieldRef)
		}
		to = append(to, file)
	}
	return to
}

func (b *podBuilder) projected(volume string, from *corev1.ProjectedVolumeSource) *corev1.ProjectedVolumeSource {
	to := &corev1.ProjectedVolumeSource{DefaultMode: from.DefaultMode}
	for i, s := range from.Sources {
		to.Sources = append(to.Sources, b.projection(volume, i, s))
	}
	return to
}

// projection returns the host's source. What a kubelet takes from its API stands in
// objects of ours: the host's own tokens and trust bundles mean nothing to the tenant,
// and must never be in a pod.
func (b *podBuilder) projection(volume string, i int, from corev1.VolumeProjection) corev1.VolumeProjection {
	var to corev1.VolumeProjection
	switch {
	case from.Secret != nil:
		f := from.Secret
		to.Secret = &corev1.SecretProjection{LocalObjectReference: b.local(f.LocalObjectReference), Items: f.Items, Optional: f.Optional}
	case from.ConfigMap != nil:
		f := from.ConfigMap
		to.ConfigMap = &corev1.ConfigMapProjection{LocalObjectReference: b.local(f.LocalObjectReference), Items: f.Items, Optional: f.Optional}
	case from.DownwardAPI != nil:
		to.DownwardAPI = &corev1.DownwardAPIProjection{Items: b.downwardFiles(from.DownwardAPI.Items)}
	case from.ServiceAccountToken != nil:
		token := tokenOf(from.ServiceAccountToken)
		to.Secret = &corev1.SecretProjection{Items: []corev1.KeyToPath{{Key: token.Key(), Path: from.ServiceAccountToken.Path}}}
		to.Secret.Name = b.ref(b.tenantPod.Name + SuffixTokens)
	case from.ClusterTrustBundle != nil:
		to.ConfigMap = b.trustBundle(from.ClusterTrustBundle)
	case from.PodCertificate != nil:
		to.Secret = b.podCertificate(volume, i, from.PodCertificate)
	}
	return to
}

// References lists the ConfigMaps and Secrets in its own namespace that a pod
// names, each once.
func References(tenantPod *corev1.Pod) (configMaps, secrets []string) {
	spec := &tenantPod.Spec
	for i := range spec.Volumes {
		c, s := volumeReferences(&spec.Volumes[i].VolumeSource)
		configMaps, secrets = append(configMaps, c...), append(secrets, s...)
	}
	eachContainer(spec, func(c *corev1.Container) {
		cs, ss := containerReferences(c)
		configMaps, secrets = append(configMaps, cs...), append(secrets, ss...)
	})
	for _, r := range spec.ImagePullSecrets {
		secrets = append(secrets, r.Name)
	}
	return unique(configMaps), unique(secrets)
}

func volumeReferences(v *corev1.VolumeSource) (configMaps, secrets []string) {
	if v.ConfigMap != nil {
		configMaps = append(configMaps, v.ConfigMap.Name)
	}
	if v.Secret != nil {
		secrets = append(secrets, v.Secret.SecretName)
	}
	if v.CSI != nil && v.CSI.NodePublishSecretRef != nil {
		secrets = append(secrets, v.CSI.NodePublishSecretRef.Name)
	}
	if v.Projected == nil {
		return configMaps, secrets
	}
	for _, p := range v.Projected.Sources {
		if p.ConfigMap != nil {
			configMaps = append(configMaps, p.ConfigMap.Name)
		}
		if p.Secret != nil {
			secrets = append(secrets, p.Secret.Name)
		}
	}
	return configMaps, secrets
}

func containerReferences(c *corev1.Container) (configMaps, secrets []string) {
	for _, f := range c.EnvFrom {
		if f.ConfigMapRef != nil {
			configMaps = append(configMaps, f.ConfigMapRef.Name)
		}
		if f.SecretRef != nil {
			secrets = append(secrets, f.SecretRef.Name)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
			configMaps = append(configMaps, r.Name)
		}
		if r := e.ValueFrom.SecretKeyRef; r != nil {
			secrets = append(secrets, r.Name)
		}
	}
	return configMaps, secrets
}

func unique(names []string) []string {
	names = slices.DeleteFunc(names, func(n string) bool { return n == "" })
	slices.Sort(names)
	return slices.Compact(names)
}
