package translate

import (
	corev1 "k8s.io/api/core/v1"
)

func (b *podBuilder) containers(from []corev1.Container) []corev1.Container {
	var to []corev1.Container
	for _, c := range from {
		to = append(to, b.container(c))
	}
	return to
}

// container returns the host's container. What is copied was looked at field by
// field before (see refusals).
func (b *podBuilder) container(from corev1.Container) corev1.Container {
	return corev1.Container{
		Name:                     from.Name,
		Image:                    from.Image,
		Command:                  from.Command,
		Args:                     from.Args,
		WorkingDir:               from.WorkingDir,
		Ports:                    from.Ports,
		EnvFrom:                  b.envFrom(from.EnvFrom),
		Env:                      append(b.serviceVariables(from), b.env(from.Env)...),
		Resources:                corev1.ResourceRequirements{Limits: from.Resources.Limits, Requests: from.Resources.Requests},
		ResizePolicy:             from.ResizePolicy,
		RestartPolicy:            from.RestartPolicy,
		RestartPolicyRules:       from.RestartPolicyRules,
		VolumeMounts:             from.VolumeMounts,
		LivenessProbe:            from.LivenessProbe,
		ReadinessProbe:           from.ReadinessProbe,
		StartupProbe:             from.StartupProbe,
		Lifecycle:                from.Lifecycle,
		TerminationMessagePath:   from.TerminationMessagePath,
		TerminationMessagePolicy: from.TerminationMessagePolicy,
		ImagePullPolicy:          from.ImagePullPolicy,
		SecurityContext:          containerSecurity(from.SecurityContext),
		Stdin:                    from.Stdin,
		StdinOnce:                from.StdinOnce,
		TTY:                      from.TTY,
	}
}

// containerSecurity returns what the host's container has of a security context.
func containerSecurity(from *corev1.SecurityContext) *corev1.SecurityContext {
	if from == nil {
		return nil
	}
	return &corev1.SecurityContext{
		Capabilities:             from.Capabilities,
		RunAsUser:                from.RunAsUser,
		RunAsGroup:               from.RunAsGroup,
		RunAsNonRoot:             from.RunAsNonRoot,
		ReadOnlyRootFilesystem:   from.ReadOnlyRootFilesystem,
		AllowPrivilegeEscalation: from.AllowPrivilegeEscalation,
		SeccompProfile:           from.SeccompProfile,
		AppArmorProfile:          from.AppArmorProfile,
	}
}

func (b *podBuilder) envFrom(from []corev1.EnvFromSource) []corev1.EnvFromSource {
	var to []corev1.EnvFromSource
	for _, f := range from {
		source := corev1.EnvFromSource{Prefix: f.Prefix}
		if r := f.ConfigMapRef; r != nil {
			source.ConfigMapRef = &corev1.ConfigMapEnvSource{LocalObjectReference: b.local(r.LocalObjectReference), Optional: r.Optional}
		}
		if r := f.SecretRef; r != nil {
			source.SecretRef = &corev1.SecretEnvSource{LocalObjectReference: b.local(r.LocalObjectReference), Optional: r.Optional}
		}
		to = append(to, source)
	}
	return to
}

func (b *podBuilder) local(r corev1.LocalObjectReference) corev1.LocalObjectReference {
	return corev1.LocalObjectReference{Name: b.ref(r.Name)}
}

func (b *podBuilder) env(from []corev1.EnvVar) []corev1.EnvVar {
	var to []corev1.EnvVar
	for _, e := range from {
		variable := corev1.EnvVar{Name: e.Name, Value: e.Value}
		if e.ValueFrom != nil {
			variable.ValueFrom = b.envSource(e.ValueFrom)
		}
		to = append(to, variable)
	}
	return to
}

func (b *podBuilder) envSource(from *corev1.EnvVarSource) *corev1.EnvVarSource {
	to := &corev1.EnvVarSource{ResourceFieldRef: from.ResourceFieldRef, FileKeyRef: from.FileKeyRef}
	if r := from.ConfigMapKeyRef; r != nil {
		to.ConfigMapKeyRef = &corev1.ConfigMapKeySelector{LocalObjectReference: b.local(r.LocalObjectReference), Key: r.Key, Optional: r.Optional}
	}
	if r := from.SecretKeyRef; r != nil {
		to.SecretKeyRef = &corev1.SecretKeySelector{LocalObjectReference: b.local(r.LocalObjectReference), Key: r.Key, Optional: r.Optional}
	}
	if from.FieldRef == nil {
		return to
	}
	if key, ok := nodeKeys[from.FieldRef.FieldPath]; ok {
		to.ConfigMapKeyRef = &corev1.ConfigMapKeySelector{Key: key}
		to.ConfigMapKeyRef.Name = b.ref(b.tenantPod.Name + SuffixNode)
		return to
	}
	to.FieldRef = b.field(from.FieldRef)
	return to
}
