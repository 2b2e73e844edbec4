package translate

import "maps"

// verdict is what becomes of a field of a tenant's pod.
type verdict int

const (
	// undecided: the field is new to us. A pod that sets it is refused.
	undecided verdict = iota
	// copied: the host pod has the tenant's value.
	copied
	// translated: the host pod has a value that is made from the tenant's.
	translated
	// forced: the host pod has our value, whatever the tenant's.
	forced
	// dropped: the field means something to the tenant's API only.
	dropped
	// refused: a pod that sets the field does not run.
	refused
)

// decision is the verdict on a field. For refused ones allow lists values that are
// as good as unset, and why tells the tenant what to do.
type decision struct {
	verdict verdict
	why     string
	allow   []string
}

func refuse(why string, allow ...string) decision {
	return decision{verdict: refused, why: why, allow: allow}
}

func all(v verdict, fields ...string) map[string]decision {
	m := make(map[string]decision, len(fields))
	for _, f := range fields {
		m[f] = decision{verdict: v}
	}
	return m
}

// with adds further decisions to those of m.
func with(m map[string]decision, more ...map[string]decision) map[string]decision {
	for _, part := range more {
		for f, d := range part {
			m[f] = d
		}
	}
	return m
}

type fields = map[string]decision

// joined is one table of two, which share no type.
func joined(a, b map[string]fields) map[string]fields {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

const (
	whyHost    = "it would reach into the node, which other tenants share: remove the field"
	whyVolume  = "this kind of volume is not offered: use persistentVolumeClaim, ephemeral, emptyDir, configMap, secret, downwardAPI, projected or image"
	whyOwner   = "choosing the owner of files is not offered: use the pod's securityContext"
	whyDevices = "devices are not offered: remove the field"
	whyProbe   = "probes go to the pod itself only: remove the host"
	whyLabels  = "labels of the node's security module are the provider's: remove the field"
	whyWindows = "only Linux is offered: remove the field"
)

// decisions holds the decision on every field that a pod's spec may have, by the
// name of its type in k8s.io/api/core/v1, and a Service's, a NetworkPolicy's and an Ingress's. Types below a forced, dropped or refused
// field need none. What the sandbox and Pod Security decide in addition (see
// isolation/policy) is not repeated here.
var decisions = joined(gatewayDecisions, map[string]fields{
	"PodSpec": with(
		all(translated, "Volumes", "InitContainers", "Containers", "EphemeralContainers", "DNSPolicy", "DNSConfig",
			"NodeSelector", "Affinity", "Tolerations", "TopologySpreadConstraints", "SecurityContext", "ImagePullSecrets",
			"Hostname", "Subdomain", "SetHostnameAsFQDN", "HostnameOverride", "OS", "Priority", "PreemptionPolicy",
			"PriorityClassName"),
		all(copied, "RestartPolicy", "TerminationGracePeriodSeconds", "ActiveDeadlineSeconds", "ShareProcessNamespace",
			"HostAliases", "Resources"),
		all(forced, "ServiceAccountName", "DeprecatedServiceAccount", "AutomountServiceAccountToken", "RuntimeClassName",
			"EnableServiceLinks", "SchedulerName", "HostUsers"),
		// NodeName is set by us through the binding; at creation isolation/policy
		// refuses it. ReadinessGates and SchedulingGates are honoured on the tenant's
		// side. A priority class of the plan is the pod's on the host, too; of others the
		// tenant's API has made the priority, which ranks the pod among the tenant's own.
		all(dropped, "NodeName", "ReadinessGates", "SchedulingGates", "Overhead", "EvictionResponders"),
		fields{
			"HostNetwork":     refuse(whyHost),
			"HostPID":         refuse(whyHost),
			"HostIPC":         refuse(whyHost),
			"ResourceClaims":  refuse(whyDevices),
			"SchedulingGroup": refuse("scheduling pods in groups is not offered: remove the field"),
		}),
	"PodOS": {"Name": refuse(whyWindows, "linux")},

	"Volume": all(translated, "Name", "VolumeSource"),
	"VolumeSource": with(
		all(translated, "EmptyDir", "Secret", "ConfigMap", "DownwardAPI", "Projected", "Image", "PersistentVolumeClaim", "Ephemeral", "CSI"),
		fields{
			"HostPath":          refuse(whyHost),
			"GCEPersistentDisk": refuse(whyVolume), "AWSElasticBlockStore": refuse(whyVolume), "GitRepo": refuse(whyVolume),
			"NFS": refuse(whyVolume), "ISCSI": refuse(whyVolume), "Glusterfs": refuse(whyVolume), "RBD": refuse(whyVolume),
			"FlexVolume": refuse(whyVolume), "Cinder": refuse(whyVolume), "CephFS": refuse(whyVolume), "Flocker": refuse(whyVolume),
			"FC": refuse(whyVolume), "AzureFile": refuse(whyVolume), "VsphereVolume": refuse(whyVolume), "Quobyte": refuse(whyVolume),
			"AzureDisk": refuse(whyVolume), "PhotonPersistentDisk": refuse(whyVolume), "PortworxVolume": refuse(whyVolume),
			"ScaleIO": refuse(whyVolume), "StorageOS": refuse(whyVolume),
		}),
	// Which drivers, the plan says: isolation/policy refuses the others.
	"CSIVolumeSource":       with(all(copied, "Driver", "ReadOnly", "FSType", "VolumeAttributes"), all(translated, "NodePublishSecretRef")),
	"EmptyDirVolumeSource":  with(all(copied, "Medium", "SizeLimit"), fields{"Mode": refuse(whyOwner)}),
	"SecretVolumeSource":    with(all(translated, "SecretName"), all(copied, "Items", "DefaultMode", "Optional"), fields{"DefaultUser": refuse(whyOwner)}),
	"ConfigMapVolumeSource": with(all(translated, "LocalObjectReference"), all(copied, "Items", "DefaultMode", "Optional"), fields{"DefaultUser": refuse(whyOwner)}),
	"KeyToPath":             with(all(copied, "Key", "Path", "Mode"), fields{"User": refuse(whyOwner)}),
	"DownwardAPIVolumeSource": with(all(translated, "Items"), all(copied, "DefaultMode"),
		fields{"DefaultUser": refuse(whyOwner)}),
	"DownwardAPIVolumeFile": with(all(translated, "FieldRef"), all(copied, "Path", "ResourceFieldRef", "Mode"),
		fields{"User": refuse(whyOwner)}),
	"ObjectFieldSelector":   all(translated, "APIVersion", "FieldPath"),
	"ResourceFieldSelector": all(copied, "ContainerName", "Resource", "Divisor"),
	"ProjectedVolumeSource": with(all(translated, "Sources"), all(copied, "DefaultMode"), fields{"DefaultUser": refuse(whyOwner)}),
	"VolumeProjection":      all(translated, "Secret", "DownwardAPI", "ConfigMap", "ServiceAccountToken", "ClusterTrustBundle", "PodCertificate"),
	"PodCertificateProjection": with(all(translated, "SignerName", "KeyType", "MaxExpirationSeconds", "CredentialBundlePath", "KeyPath",
		"CertificateChainPath", "UserAnnotations"), fields{"User": refuse(whyOwner)}),
	"ClusterTrustBundleProjection":  with(all(translated, "Name", "SignerName", "LabelSelector", "Optional", "Path"), fields{"User": refuse(whyOwner)}),
	"SecretProjection":              with(all(translated, "LocalObjectReference"), all(copied, "Items", "Optional")),
	"ConfigMapProjection":           with(all(translated, "LocalObjectReference"), all(copied, "Items", "Optional")),
	"DownwardAPIProjection":         all(translated, "Items"),
	"ServiceAccountTokenProjection": with(all(translated, "Audience", "ExpirationSeconds", "Path"), fields{"User": refuse(whyOwner)}),
	"ImageVolumeSource":             all(copied, "Reference", "PullPolicy"),
	"LocalObjectReference":          all(translated, "Name"),

	"Container":                containerFields,
	"EphemeralContainer":       with(all(translated, "EphemeralContainerCommon"), all(copied, "TargetContainerName")),
	"EphemeralContainerCommon": containerFields,
	"ContainerPort": with(all(copied, "Name", "ContainerPort", "Protocol"), fields{
		"HostPort": refuse("ports of the node are shared with other tenants: use a Service"),
		"HostIP":   refuse("ports of the node are shared with other tenants: use a Service"),
	}),
	"EnvFromSource":                   with(all(copied, "Prefix"), all(translated, "ConfigMapRef", "SecretRef")),
	"ConfigMapEnvSource":              with(all(translated, "LocalObjectReference"), all(copied, "Optional")),
	"SecretEnvSource":                 with(all(translated, "LocalObjectReference"), all(copied, "Optional")),
	"EnvVar":                          with(all(copied, "Name", "Value"), all(translated, "ValueFrom")),
	"EnvVarSource":                    with(all(translated, "FieldRef", "ConfigMapKeyRef", "SecretKeyRef"), all(copied, "ResourceFieldRef", "FileKeyRef")),
	"ConfigMapKeySelector":            with(all(translated, "LocalObjectReference"), all(copied, "Key", "Optional")),
	"SecretKeySelector":               with(all(translated, "LocalObjectReference"), all(copied, "Key", "Optional")),
	"FileKeySelector":                 all(copied, "VolumeName", "Path", "Key", "Optional"),
	"ResourceRequirements":            with(all(copied, "Limits", "Requests"), fields{"Claims": refuse(whyDevices)}),
	"ContainerResizePolicy":           all(copied, "ResourceName", "RestartPolicy"),
	"ContainerRestartRule":            all(copied, "Action", "ExitCodes"),
	"ContainerRestartRuleOnExitCodes": all(copied, "Operator", "Values"),
	"VolumeMount": with(all(copied, "Name", "ReadOnly", "RecursiveReadOnly", "MountPath", "SubPath", "SubPathExpr"), fields{
		"MountPropagation": refuse("mounts are not shared with the node: remove the field", "None", "HostToContainer"),
		"BindMountOptions": refuse(whyHost),
	}),
	"Probe": all(copied, "ProbeHandler", "InitialDelaySeconds", "TimeoutSeconds", "PeriodSeconds", "SuccessThreshold",
		"FailureThreshold", "TerminationGracePeriodSeconds"),
	"ProbeHandler":     all(copied, "Exec", "HTTPGet", "TCPSocket", "GRPC"),
	"ExecAction":       all(copied, "Command"),
	"HTTPGetAction":    with(all(copied, "Path", "Port", "Scheme", "HTTPHeaders", "Protocol"), fields{"Host": refuse(whyProbe)}),
	"HTTPHeader":       all(copied, "Name", "Value"),
	"TCPSocketAction":  with(all(copied, "Port"), fields{"Host": refuse(whyProbe)}),
	"GRPCAction":       all(copied, "Port", "Service", "Mode"),
	"Lifecycle":        all(copied, "PostStart", "PreStop", "StopSignal"),
	"LifecycleHandler": all(copied, "Exec", "HTTPGet", "TCPSocket", "Sleep"),
	"SleepAction":      all(copied, "Seconds"),

	"SecurityContext": with(
		// What restricted wants is said where the pod leaves it open.
		all(translated, "Capabilities", "AllowPrivilegeEscalation"),
		all(copied, "RunAsUser", "RunAsGroup", "RunAsNonRoot", "ReadOnlyRootFilesystem", "SeccompProfile", "AppArmorProfile"),
		// What Pod Security lets pass of a label chooses among containers' labels; on a
		// node that has them the runtime chooses, one for each pod.
		all(dropped, "SELinuxOptions"),
		fields{
			"Privileged":     refuse(whyHost),
			"WindowsOptions": refuse(whyWindows),
			"ProcMount":      refuse("an unmasked /proc is not offered: remove the field", "Default"),
		}),
	"Capabilities": with(all(copied, "Add"), all(translated, "Drop")),
	"SeccompProfile": with(all(copied, "Type"), fields{
		"LocalhostProfile": refuse("profiles on the node are the provider's: use RuntimeDefault")}),
	"AppArmorProfile": with(all(copied, "Type"), fields{
		"LocalhostProfile": refuse("profiles on the node are the provider's: use RuntimeDefault")}),
	"PodSecurityContext": with(
		all(copied, "RunAsUser", "RunAsGroup", "RunAsNonRoot", "SupplementalGroups", "SupplementalGroupsPolicy", "FSGroup",
			"FSGroupChangePolicy", "Sysctls", "AppArmorProfile"),
		all(translated, "SeccompProfile"),
		all(dropped, "SELinuxOptions"),
		fields{
			"SELinuxChangePolicy": refuse(whyLabels),
			"WindowsOptions":      refuse(whyWindows),
		}),
	"Sysctl":    all(copied, "Name", "Value"),
	"HostAlias": all(copied, "IP", "Hostnames"),

	"PodDNSConfig":            all(translated, "Nameservers", "Searches", "Options"),
	"PodDNSConfigOption":      all(translated, "Name", "Value"),
	"Affinity":                all(translated, "NodeAffinity", "PodAffinity", "PodAntiAffinity"),
	"NodeAffinity":            all(translated, "RequiredDuringSchedulingIgnoredDuringExecution", "PreferredDuringSchedulingIgnoredDuringExecution"),
	"NodeSelector":            all(translated, "NodeSelectorTerms"),
	"NodeSelectorTerm":        all(translated, "MatchExpressions", "MatchFields"),
	"NodeSelectorRequirement": all(translated, "Key", "Operator", "Values"),
	"PreferredSchedulingTerm": all(translated, "Weight", "Preference"),
	"PodAffinity":             all(translated, "RequiredDuringSchedulingIgnoredDuringExecution", "PreferredDuringSchedulingIgnoredDuringExecution"),
	"PodAntiAffinity":         all(translated, "RequiredDuringSchedulingIgnoredDuringExecution", "PreferredDuringSchedulingIgnoredDuringExecution"),
	"WeightedPodAffinityTerm": all(translated, "Weight", "PodAffinityTerm"),
	"Toleration":              all(translated, "Key", "Operator", "Value", "Effect", "TolerationSeconds"),
	// The tenant's API has merged the values of (mis)matchLabelKeys into the selectors.
	"PodAffinityTerm": with(all(translated, "LabelSelector", "Namespaces", "TopologyKey", "NamespaceSelector"),
		all(dropped, "MatchLabelKeys", "MismatchLabelKeys")),
	"TopologySpreadConstraint": with(
		all(translated, "TopologyKey", "LabelSelector"),
		all(copied, "MaxSkew", "WhenUnsatisfiable", "MinDomains", "NodeAffinityPolicy", "NodeTaintsPolicy"),
		all(dropped, "MatchLabelKeys")),

	"NetworkPolicySpec":        all(translated, "PodSelector", "Ingress", "Egress", "PolicyTypes"),
	"NetworkPolicyIngressRule": all(translated, "Ports", "From"),
	"NetworkPolicyEgressRule":  all(translated, "Ports", "To"),
	"NetworkPolicyPort":        with(all(translated, "Protocol"), all(copied, "Port", "EndPort")),
	"NetworkPolicyPeer":        all(translated, "PodSelector", "NamespaceSelector", "IPBlock"),
	"IPBlock":                  all(copied, "CIDR", "Except"),

	"ServiceSpec":           serviceDecisions["ServiceSpec"],
	"ServicePort":           serviceDecisions["ServicePort"],
	"SessionAffinityConfig": serviceDecisions["SessionAffinityConfig"],
	"ClientIPConfig":        serviceDecisions["ClientIPConfig"],

	"IngressSpec":           ingressDecisions["IngressSpec"],
	"IngressTLS":            ingressDecisions["IngressTLS"],
	"IngressRule":           ingressDecisions["IngressRule"],
	"IngressRuleValue":      ingressDecisions["IngressRuleValue"],
	"HTTPIngressRuleValue":  ingressDecisions["HTTPIngressRuleValue"],
	"HTTPIngressPath":       ingressDecisions["HTTPIngressPath"],
	"IngressBackend":        ingressDecisions["IngressBackend"],
	"IngressServiceBackend": ingressDecisions["IngressServiceBackend"],
	"ServiceBackendPort":    ingressDecisions["ServiceBackendPort"],

	"PersistentVolumeClaimVolumeSource": claimDecisions["PersistentVolumeClaimVolumeSource"],
	"EphemeralVolumeSource":             claimDecisions["EphemeralVolumeSource"],
	"PersistentVolumeClaimTemplate":     claimDecisions["PersistentVolumeClaimTemplate"],
	"PersistentVolumeClaimSpec":         claimDecisions["PersistentVolumeClaimSpec"],
	"TypedLocalObjectReference":         claimDecisions["TypedLocalObjectReference"],
	"TypedObjectReference":              claimDecisions["TypedObjectReference"],
	"VolumeResourceRequirements":        claimDecisions["VolumeResourceRequirements"],
})

// containerFields are the decisions on containers of all three sorts.
var containerFields = with(
	all(copied, "Name", "Image", "Command", "Args", "WorkingDir", "Ports", "Resources", "ResizePolicy", "RestartPolicy",
		"RestartPolicyRules", "VolumeMounts", "LivenessProbe", "ReadinessProbe", "StartupProbe", "Lifecycle",
		"TerminationMessagePath", "TerminationMessagePolicy", "ImagePullPolicy", "Stdin", "StdinOnce", "TTY"),
	all(translated, "EnvFrom", "Env", "SecurityContext"),
	fields{"VolumeDevices": refuse(whyDevices)})
