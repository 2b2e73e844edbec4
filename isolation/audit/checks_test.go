package audit

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

// change is facts in which one thing differs from the good ones.
type change struct {
	name string
	do   func(f *Facts)
	// says must be in the reason.
	says string
}

// edit changes the value of a known fact.
func edit[T any](f *Fact[T], how func(*T)) { how(&f.value) }

func onTenant(how func(*v1alpha1.VirtualCluster)) func(*Facts) {
	return func(f *Facts) { edit(&f.Tenant, how) }
}

func onPod(how func(*corev1.Pod)) func(*Facts) {
	return func(f *Facts) { edit(&f.Pods, func(p *[]corev1.Pod) { how(&(*p)[0]) }) }
}

func onProbes(how func(*Probes)) func(*Facts) {
	return func(f *Facts) { edit(&f.Probes, how) }
}

func onProcess(how func(*Process)) func(*Facts) {
	return func(f *Facts) {
		edit(&f.Sandboxes, func(s *[]Sandbox) { edit(&(*s)[0].Process, how) })
	}
}

func addKey(labels, annotations map[string]string) func(*Facts) {
	return func(f *Facts) {
		edit(&f.Objects, func(o *[]Object) {
			*o = append(*o, Object{"Service", metav1.ObjectMeta{Namespace: acmeSpace, Name: "web", Labels: labels, Annotations: annotations}})
		})
	}
}

// reached is an attempt that must be refused and was not.
func reached(list func(*Probes) *[]Attempt) func(*Facts) {
	return onProbes(func(p *Probes) { *list(p) = []Attempt{attempt("it", "192.0.2.1:1", true)} })
}

// lost is a positive control that failed.
func lost(list func(*Probes) *[]Attempt) func(*Facts) {
	return onProbes(func(p *Probes) { *list(p) = []Attempt{attempt("its own", "192.0.2.1:1", false)} })
}

// untried is an attempt that could not be made.
func untried(list func(*Probes) *[]Attempt) func(*Facts) {
	return onProbes(func(p *Probes) { *list(p) = []Attempt{{To: "it", Reply: Unknown[Reply](errTest)}} })
}

var (
	controls    = func(p *Probes) *[]Attempt { return &p.Controls }
	strangers   = func(p *Probes) *[]Attempt { return &p.Stranger }
	strangerAPI = func(p *Probes) *[]Attempt { return &p.StrangerAPI }
	metadatas   = func(p *Probes) *[]Attempt { return &p.Metadata }
	hosts       = func(p *Probes) *[]Attempt { return &p.Host }
	inbound     = func(p *Probes) *[]Attempt { return &p.Inbound }
	inControls  = func(p *Probes) *[]Attempt { return &p.InboundControls }
)

// failing has, for every check, facts in which it must fail.
var failing = map[string][]change{
	"SUB-VC-001": {
		{"not fenced", onTenant(func(vc *v1alpha1.VirtualCluster) { vc.Status.Conditions[0].Status = metav1.ConditionFalse }), "Fenced is False"},
		{"not reported", onTenant(func(vc *v1alpha1.VirtualCluster) { vc.Status.Conditions = nil }), "not reported"},
	},
	"SUB-NS-001": {
		{"another name", onTenant(func(vc *v1alpha1.VirtualCluster) { vc.Status.Namespace = "kube-system" }), "kube-system"},
		{"a second one", func(f *Facts) {
			edit(&f.Namespaces, func(n *[]corev1.Namespace) {
				*n = append(*n, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "more", Labels: map[string]string{tenant.LabelTenant: acmeUID}}})
			})
		}, "carries this tenant's mark, too"},
		{"another tenant's mark", func(f *Facts) {
			edit(&f.Namespaces, func(n *[]corev1.Namespace) { (*n)[0].Labels[tenant.LabelTenant] = "x" })
		}, "carries the mark of"},
		{"none", func(f *Facts) { f.Namespaces = Known([]corev1.Namespace{}) }, "does not exist"},
	},
	"SUB-NS-002": {
		{"none", func(f *Facts) { f.Quotas = Known([]corev1.ResourceQuota{}) }, "no quota"},
		{"not in force", func(f *Facts) {
			edit(&f.Quotas, func(q *[]corev1.ResourceQuota) { (*q)[0].Status = corev1.ResourceQuotaStatus{} })
		}, "no quota"},
		{"for some pods only", func(f *Facts) {
			edit(&f.Quotas, func(q *[]corev1.ResourceQuota) {
				(*q)[0].Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}
			})
		}, "no quota"},
	},
	"SUB-RBAC-001": {
		{"a stranger", func(f *Facts) {
			edit(&f.Bindings, func(b *[]Binding) { (*b)[0].Subjects[0].Name = "mallory" })
		}, `"mallory"`},
		{"a group", func(f *Facts) {
			edit(&f.Bindings, func(b *[]Binding) {
				(*b)[0].Subjects[0] = rbacv1.Subject{Kind: rbacv1.GroupKind, Name: tenant.WriteUser(acmeSpace)}
			})
		}, "Group"},
		{"the account of another namespace", func(f *Facts) {
			edit(&f.Bindings, func(b *[]Binding) { (*b)[0].Subjects[0].Namespace = "default" })
		}, `ServiceAccount "` + tenant.Writer + `"`},
		{"another account of the namespace", func(f *Facts) {
			edit(&f.Bindings, func(b *[]Binding) { (*b)[0].Subjects[0].Name = "default" })
		}, `ServiceAccount "default"`},
		{"to be the syncer, for another", func(f *Facts) {
			edit(&f.Bindings, func(b *[]Binding) { (*b)[1].Subjects[0].Name = tenant.CellUser("cell-1") })
		}, "the verb impersonate"},
		{"to be the syncer, and more", func(f *Facts) {
			edit(&f.Bindings, func(b *[]Binding) {
				rules, _ := (*b)[1].Rules.Get()
				(*b)[1].Rules = Known(append(slices.Clone(rules), rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}}))
			})
		}, "the verb impersonate"},
		{"to be everybody, for the cell", func(f *Facts) {
			edit(&f.Bindings, func(b *[]Binding) {
				everybody := baseline.ActRule()
				everybody.ResourceNames = nil
				(*b)[1].Rules = Known([]rbacv1.PolicyRule{everybody})
			})
		}, "the verb impersonate"},
		{"everything", func(f *Facts) {
			edit(&f.Bindings, func(b *[]Binding) { (*b)[0].Rules = Known([]rbacv1.PolicyRule{{Verbs: []string{"*"}}}) })
		}, "a wildcard"},
		{"more for itself", func(f *Facts) {
			edit(&f.Bindings, func(b *[]Binding) {
				(*b)[0].Rules = Known([]rbacv1.PolicyRule{{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"rolebindings"}, Verbs: []string{"create"}}})
			})
		}, "writing of roles"},
		{"elsewhere", func(f *Facts) {
			edit(&f.Bindings, func(b *[]Binding) { (*b)[0].Kind = "ClusterRoleBinding" })
		}, "outside its host namespace"},
		{"none", func(f *Facts) { f.Bindings = Known([]Binding{}) }, "no binding"},
	},
	"SUB-META-001": {
		{"kata", addKey(nil, map[string]string{"io.katacontainers.config.hypervisor.virtio_fs_extra_args": "x"}), "io.katacontainers"},
		{"calico", addKey(map[string]string{"pcns.sublet.dev/tenant": "x"}, nil), "pcns."},
		{"a key that is not hashed", addKey(map[string]string{"label.sublet.dev/app": "x"}, nil), "label.sublet.dev/app"},
		{"ours, but unknown", addKey(nil, map[string]string{"sublet.dev/x": "y"}), "sublet.dev/x"},
		{"no domain", addKey(map[string]string{"app": "web"}, nil), `label "app"`},
		{"a look-alike", addKey(map[string]string{"evilsublet.dev/tenant": "x"}, nil), "evilsublet.dev"},
		{"a look-alike without slash", addKey(map[string]string{"xsublet.dev": "x"}, nil), "xsublet.dev"},
		{"pod security on no namespace", addKey(map[string]string{"pod-security.kubernetes.io/enforce": "privileged"}, nil), "pod-security"},
	},
	"SUB-META-002": {
		{"a token", addKey(nil, map[string]string{"sublet.dev/x": "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2ln"}), "JWT"},
		{"a key", addKey(nil, map[string]string{"sublet.dev/x": "-----BEGIN EC PRIVATE KEY-----\n"}), "private key"},
		{"a key in base64", addKey(nil, map[string]string{"sublet.dev/x": "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t"}), "private key"},
		{"a bearer", addKey(nil, map[string]string{"sublet.dev/x": "Bearer abcdefghijklmnopqrstuvwxyz"}), "bearer"},
	},
	"SUB-BASE-001": {
		{"one is gone", func(f *Facts) { edit(&f.Baseline, func(o *[]baseline.Object) { *o = (*o)[1:] }) }, "does not exist"},
		{"privileged pods", onBaseline(func(o baseline.Object) {
			if ns, ok := o.(*corev1.Namespace); ok {
				ns.Labels["pod-security.kubernetes.io/enforce"] = "privileged"
			}
		}), "pod-security.kubernetes.io/enforce"},
		{"tokens", onBaseline(func(o baseline.Object) {
			if a, ok := o.(*corev1.ServiceAccount); ok {
				a.AutomountServiceAccountToken = nil
			}
		}), "automount"},
		{"more rights", onBaseline(func(o baseline.Object) {
			if r, ok := o.(*rbacv1.Role); ok {
				r.Rules = append(r.Rules, rbacv1.PolicyRule{Verbs: []string{"create"}, Resources: []string{"pods/binding"}})
			}
		}), "the rules"},
		{"more rights outside", onBaseline(func(o baseline.Object) {
			if r, ok := o.(*rbacv1.ClusterRole); ok && len(r.Rules) > 0 {
				r.Rules[0].Resources = append(r.Rules[0].Resources, "volumesnapshotcontents")
			}
		}), "the rules"},
		{"more identities", onBaseline(func(o baseline.Object) {
			if b, ok := o.(*rbacv1.RoleBinding); ok {
				b.Subjects = append(b.Subjects, rbacv1.Subject{Name: "x"})
			}
		}), "the subjects"},
		{"another role", onBaseline(func(o baseline.Object) {
			if b, ok := o.(*rbacv1.ClusterRoleBinding); ok {
				b.RoleRef.Name = "cluster-admin"
			}
		}), "cluster-admin"},
		{"more pods", onBaseline(func(o baseline.Object) {
			if q, ok := o.(*corev1.ResourceQuota); ok {
				delete(q.Spec.Hard, corev1.ResourcePods)
			}
		}), "the limits"},
	},
	"SUB-ADM-001": {{"accepted", func(f *Facts) {
		edit(&f.Admissions, func(a *[]Admission) { (*a)[1] = Admission{What: "the host's network"} })
	}, "the host's network would be created"}},
	"SUB-POD-001": {
		{"another class", onPod(func(p *corev1.Pod) { p.Spec.RuntimeClassName = ptr.To("runc") }), `"runc"`},
		{"no class", onPod(func(p *corev1.Pod) { p.Spec.RuntimeClassName = nil }), "<none>"},
		{"another handler", func(f *Facts) {
			edit(&f.RuntimeClasses, func(c *[]nodev1.RuntimeClass) { (*c)[0].Handler = "runc" })
		}, `handler "runc"`},
		{"class is gone", func(f *Facts) { f.RuntimeClasses = Known([]nodev1.RuntimeClass{}) }, "does not exist"},
	},
	"SUB-POD-002": {
		{"host path", onPod(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		}), "ostPath"},
		{"host network", onPod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), "host"},
		{"privileged", onPod(func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
		}), "rivileged"},
		{"host port", onPod(func(p *corev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}} }), "ostPort"},
		{"a priority of the host", onPod(func(p *corev1.Pod) { p.Spec.PriorityClassName, p.Spec.Priority = "gold", ptr.To[int32](1000) }), "the rule priority"},
		{"a class that the plan does not have", func(f *Facts) {
			onPod(func(p *corev1.Pod) { p.Spec.PriorityClassName = "gold" })(f)
			f.Plan = Known(v1alpha1.Plan{Spec: v1alpha1.PlanSpec{PriorityClasses: []string{"silver"}}})
		}, "the rule priority"},
		{"what gVisor may and runc may not", func(f *Facts) {
			onTenant(func(vc *v1alpha1.VirtualCluster) { vc.Spec.Sandbox = "runc-userns" })(f)
		}, "restricted"},
	},
	"SUB-POD-003": {
		{"by default", onPod(func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = nil }), "service account token"},
		{"projected", onPod(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}}}}}
		}), "credential of the host"},
	},
	"SUB-POD-004": {
		{"by hand", onPod(func(p *corev1.Pod) { p.Labels, p.Annotations = nil, nil }), "not made by the syncer"},
		{"another's", onPod(func(p *corev1.Pod) {
			o := tenant.Owner{Tenant: "x", Name: tenant.Name{Namespace: "default", Name: "web"}, UID: "u"}
			p.Labels, p.Annotations = o.Marks()
			p.Name = string(o.Tenant.HostName(o.Name))
		}), `belongs to the tenant "x"`},
		{"elsewhere", onPod(func(p *corev1.Pod) { p.Namespace = "default" }), "outside"},
		{"a canary by label alone", onPod(func(p *corev1.Pod) {
			p.Labels = map[string]string{LabelAudit: "x", tenant.LabelManagedBy: ManagedByAudit}
		}), "not made by the syncer"},
	},
	"SUB-SVC-001": {
		{"outside", func(f *Facts) {
			edit(&f.Services, func(s *[]corev1.Service) { *s = append(*s, service("x", "10.96.0.1")) })
		}, "10.96.0.1"},
		{"outside of the second range", func(f *Facts) {
			edit(&f.Tenant, func(v *v1alpha1.VirtualCluster) { v.Status.SecondServiceCIDR = "fd00:96::400/118" })
			edit(&f.Services, func(s *[]corev1.Service) {
				*s = append(*s, service("ours", "fd00:96::431"), service("x", "fd00:96::831"))
			})
		}, "fd00:96::831"},
		{"external", func(f *Facts) {
			edit(&f.Services, func(s *[]corev1.Service) { (*s)[1].Spec.ExternalIPs = []string{"8.8.8.8"} })
		}, "8.8.8.8"},
		{"a name", func(f *Facts) {
			edit(&f.Services, func(s *[]corev1.Service) { (*s)[1].Spec.ExternalName = "metadata" })
		}, "metadata"},
		{"a load balancer's address", func(f *Facts) {
			edit(&f.Services, func(s *[]corev1.Service) { (*s)[1].Spec.LoadBalancerIP = "192.0.2.9" }) //nolint:staticcheck // still honoured
		}, "192.0.2.9"},
		{"from outside", func(f *Facts) {
			edit(&f.Services, func(s *[]corev1.Service) { (*s)[1].Spec.Type = corev1.ServiceTypeNodePort })
		}, "NodePort"},
		{"no API", func(f *Facts) { edit(&f.Services, func(s *[]corev1.Service) { *s = (*s)[1:] }) }, "tenant's API"},
	},
	"SUB-SVC-002": {
		{"foreign", func(f *Facts) {
			edit(&f.EndpointSlices, func(s *[]discoveryv1.EndpointSlice) {
				*s = append(*s, endpointSlice("x", tenant.ManagedBySyncer, 80, "169.254.169.254"))
			})
		}, "169.254.169.254"},
		{"the front door, by the tenant", func(f *Facts) {
			edit(&f.EndpointSlices, func(s *[]discoveryv1.EndpointSlice) {
				*s = append(*s, endpointSlice("x", tenant.ManagedBySyncer, 31001, nodeIP))
			})
		}, nodeIP},
		{"another port of the node", func(f *Facts) {
			edit(&f.EndpointSlices, func(s *[]discoveryv1.EndpointSlice) { (*s)[0].Ports[0].Port = ptr.To[int32](10250) })
		}, nodeIP},
		{"none", func(f *Facts) { f.EndpointSlices = Known([]discoveryv1.EndpointSlice{}) }, "not even"},
	},
	"SUB-SVC-004": {
		{"another's", func(f *Facts) { edit(&f.Served, func(s *[]Served) { (*s)[0].Hostnames[0] = "bank.example" }) }, "bank.example"},
		{"below its own wildcard, unasked", func(f *Facts) { edit(&f.Served, func(s *[]Served) { (*s)[0].Hostnames[0] = "x.acme.example" }) }, "x.acme.example"},
		{"every one", func(f *Facts) { edit(&f.Served, func(s *[]Served) { (*s)[0].Hostnames[0] = "" }) }, "every hostname"},
		{"what it had", func(f *Facts) { edit(&f.Namespaces, func(s *[]corev1.Namespace) { (*s)[0].Annotations = nil }) }, "shop.example"},
	},
	"SUB-SVC-003": {
		{"overlap", func(f *Facts) {
			edit(&f.Tenants, func(v *[]v1alpha1.VirtualCluster) { (*v)[1].Status.ServiceCIDR = "10.96.4.0/24" })
		}, "globex"},
		{"overlap of the second range", func(f *Facts) {
			edit(&f.Tenant, func(v *v1alpha1.VirtualCluster) { v.Status.SecondServiceCIDR = "fd00:96::400/118" })
			edit(&f.Tenants, func(v *[]v1alpha1.VirtualCluster) { (*v)[1].Status.SecondServiceCIDR = "fd00:96::400/119" })
		}, "fd00:96::400/119"},
		{"one port for two", func(f *Facts) {
			edit(&f.Tenants, func(v *[]v1alpha1.VirtualCluster) { (*v)[1].Status.APIPort = 31001 })
		}, "same address"},
	},
	"SUB-SBX-001": {
		{"runc", onProcess(func(p *Process) { p.Exe = "/bin/sleep" }), "not gVisor's runsc"},
		{"a runsc that is no sandbox", onProcess(func(p *Process) { p.Argv = []string{"runsc-gofer", "gofer"} }), "no sandbox"},
		{"no process", onProcess(func(p *Process) { *p = Process{Handler: "runsc"} }), "no process"},
		{"the host's users", func(f *Facts) {
			onTenant(func(vc *v1alpha1.VirtualCluster) { vc.Spec.Sandbox = "runc-userns" })(f)
			onProcess(func(p *Process) { p.UIDMap = "         0          0 4294967295\n" })(f)
		}, "host's own"},
		{"no user map", func(f *Facts) {
			onTenant(func(vc *v1alpha1.VirtualCluster) { vc.Spec.Sandbox = "runc-userns" })(f)
			onProcess(func(p *Process) { p.UIDMap = "" })(f)
		}, "unreadable"},
		{"one known and wrong, one unknown", func(f *Facts) {
			onProcess(func(p *Process) { p.Exe = "/bin/sleep" })(f)
			edit(&f.Sandboxes, func(s *[]Sandbox) { *s = append(*s, Sandbox{Process: Unknown[Process](errTest)}) })
		}, "not gVisor's runsc"},
	},
	"SUB-SBX-002": {{"runc", onProcess(func(p *Process) { p.Handler = "runc" }), `"runc"`}},
	"SUB-SBX-003": {
		{"the host's kernel", onProbes(func(p *Probes) { p.Uname = Known("Linux x 6.18.44 x86_64") }), "6.18.44"},
		{"the host's messages", onProbes(func(p *Probes) { p.Dmesg = Known("[0.0] Linux version 6.18.44") }), "dmesg"},
	},
	"SUB-NET-001": {
		{"reached", reached(strangers), "reached it"},
		{"reached, without controls", func(f *Facts) { lost(controls)(f); reached(strangers)(f) }, "reached it"},
	},
	"SUB-NET-002": {{"reached", reached(metadatas), "reached it"}},
	"SUB-NET-003": {{"reached", reached(hosts), "reached it"}},
	"SUB-NET-004": {{"reached", reached(strangerAPI), "reached it"}},
	"SUB-NET-005": {{"reached", reached(inbound), "reached it"}},
	"SUB-DNS-001": {{"another tenant's answer", onProbes(func(p *Probes) { edit(&p.DNS.Reply, func(r *Reply) { r.Addresses = []string{"10.96.8.1"} }) }), "10.96.8.1"},
		{"the node's resolver", onProbes(func(p *Probes) { edit(&p.DNS.Reply, func(r *Reply) { r.Addresses = nil }) }), "stands for"}},
	"SUB-NET-006": {
		{"a rule is missing", onFence(func(s *FenceState) { s.Enforced = s.Enforced[:1] }), `lacks "drop a"`},
		{"a rule too much", onFence(func(s *FenceState) { s.Enforced = append(s.Enforced, "accept all") }), "accept all"},
		{"the same rule twice", onFence(func(s *FenceState) { s.Enforced = append(s.Enforced, "drop a") }), "drop a"},
		{"another order", onFence(func(s *FenceState) {
			*s = FenceState{Rendered: []string{"chain c rule 000 drop a", "chain c rule 001 accept"}, Enforced: []string{"chain c rule 000 accept", "chain c rule 001 drop a"}}
		}), "rule 001 accept"},
		{"a rule before the others", onFence(func(s *FenceState) {
			*s = FenceState{Rendered: []string{"chain c rule 000 drop a"}, Enforced: []string{"chain c rule 000 accept", "chain c rule 001 drop a"}}
		}), `has, and should not have, "chain c rule accept"`},
		{"no fence at all", onFence(func(s *FenceState) { *s = FenceState{} }), "no fence"},
	},
	"SUB-HOST-002": {
		{"old containerd", onNode(func(n *Node) { n.Versions["containerd"] = "v2.2.4" }), "2.2.4"},
		{"an older line", onNode(func(n *Node) { n.Versions["runc"] = "1.2.99" }), "1.2.99"},
	},
	"SUB-HOST-003": {{"offered and broken", onNode(func(n *Node) { n.Sandboxes[tenant.GVisor] = "runsc crashed" }), "runsc crashed"}},
	"SUB-HOST-001": {{"left", func(f *Facts) { f.Tenants = Known([]v1alpha1.VirtualCluster{globex()}) }, acmeUID}},
}

func onBaseline(how func(baseline.Object)) func(*Facts) {
	return func(f *Facts) {
		for _, o := range f.Baseline.value {
			how(o)
		}
	}
}

func onAdmissions(how func(*[]Admission)) func(*Facts) {
	return func(f *Facts) { edit(&f.Admissions, how) }
}

func onNode(how func(*Node)) func(*Facts) {
	return func(f *Facts) { edit(&f.Nodes, func(n *[]Fact[Node]) { edit(&(*n)[0], how) }) }
}

func silentNode(f *Facts) { f.Nodes = Known([]Fact[Node]{Unknown[Node](errTest)}) }

func onFence(how func(*FenceState)) func(*Facts) {
	return func(f *Facts) { edit(&f.Fences, func(s *[]Fence) { edit(&(*s)[0].State, how) }) }
}

func noTenant(f *Facts) { f.Tenant = Unknown[v1alpha1.VirtualCluster](errTest) }
func noPods(f *Facts)   { f.Pods = Unknown[[]corev1.Pod](errTest) }
func noProbes(f *Facts) { f.Probes = Unknown[Probes](errTest) }

// unclear has, for every check, facts from which it must not conclude anything.
var unclear = map[string][]change{
	"SUB-BASE-001": {{"no tenant", noTenant, ""}, {"not read", func(f *Facts) { f.Baseline = Unknown[[]baseline.Object](errTest) }, ""}, {"no cell yet", onTenant(func(vc *v1alpha1.VirtualCluster) { vc.Status.Cell = "" }), "no cell"}},
	"SUB-ADM-001": {{"not asked", func(f *Facts) { f.Admissions = Unknown[[]Admission](errTest) }, ""}, {"no answer", onAdmissions(func(a *[]Admission) { (*a)[1].Err = errTest }), "does not answer"},
		{"everything is refused", onAdmissions(func(a *[]Admission) { (*a)[0].Refused = true }), "positive control failed"}, {"no control", onAdmissions(func(a *[]Admission) { *a = (*a)[1:] }), "0 positive controls"},
		{"nothing to refuse", onAdmissions(func(a *[]Admission) { *a = (*a)[:1] }), "0 pods"}},
	"SUB-VC-001": {{"no tenant", noTenant, "does not answer"}},
	"SUB-NS-001": {{"no tenant", noTenant, ""}, {"no namespaces", func(f *Facts) { f.Namespaces = Unknown[[]corev1.Namespace](errTest) }, ""}},
	"SUB-NS-002": {{"no quotas", func(f *Facts) { f.Quotas = Unknown[[]corev1.ResourceQuota](errTest) }, ""}},
	"SUB-RBAC-001": {{"no tenant", noTenant, ""}, {"no bindings", func(f *Facts) { f.Bindings = Unknown[[]Binding](errTest) }, ""}, {"no rules", func(f *Facts) {
		edit(&f.Bindings, func(b *[]Binding) { (*b)[0].Rules = Unknown[[]rbacv1.PolicyRule](errTest) })
	}, "the role of"}},
	"SUB-META-001": {{"no objects", func(f *Facts) { f.Objects = Unknown[[]Object](errTest) }, ""}, {"nothing at all", func(f *Facts) { f.Objects = Known([]Object{}) }, ""}},
	"SUB-META-002": {{"no objects", func(f *Facts) { f.Objects = Unknown[[]Object](errTest) }, ""}, {"nothing at all", func(f *Facts) { f.Objects = Known([]Object{}) }, ""}},
	"SUB-POD-001":  {{"no tenant", noTenant, ""}, {"no pods", noPods, ""}, {"no classes", func(f *Facts) { f.RuntimeClasses = Unknown[[]nodev1.RuntimeClass](errTest) }, ""}, {"an unknown sandbox", onTenant(func(vc *v1alpha1.VirtualCluster) { vc.Spec.Sandbox = "kata" }), "kata"}},
	"SUB-POD-002":  {{"no pods", noPods, ""}, {"an unknown sandbox", onTenant(func(vc *v1alpha1.VirtualCluster) { vc.Spec.Sandbox = "kata" }), "kata"}},
	"SUB-POD-003":  {{"no pods", noPods, ""}},
	"SUB-POD-004":  {{"no pods", noPods, ""}, {"no tenant", noTenant, ""}},
	"SUB-SVC-001":  {{"no range", onTenant(func(vc *v1alpha1.VirtualCluster) { vc.Status.ServiceCIDR = "" }), "range"}, {"no services", func(f *Facts) { f.Services = Unknown[[]corev1.Service](errTest) }, ""}},
	"SUB-SVC-002":  {{"no slices", func(f *Facts) { f.EndpointSlices = Unknown[[]discoveryv1.EndpointSlice](errTest) }, ""}, {"no addresses", func(f *Facts) { f.PodIPs = Unknown[[]string](errTest) }, ""}},
	"SUB-SVC-004":  {{"no tenant", noTenant, ""}, {"nothing read", func(f *Facts) { f.Served = Unknown[[]Served](errTest) }, ""}, {"no namespaces", func(f *Facts) { f.Namespaces = Unknown[[]corev1.Namespace](errTest) }, ""}},
	"SUB-SVC-003":  {{"no others", func(f *Facts) { f.Tenants = Unknown[[]v1alpha1.VirtualCluster](errTest) }, ""}},
	"SUB-SBX-001":  {{"a node is silent", func(f *Facts) { edit(&f.Sandboxes, func(s *[]Sandbox) { (*s)[0].Process = Unknown[Process](errTest) }) }, "does not answer"}},
	"SUB-SBX-002":  {{"a node is silent", func(f *Facts) { edit(&f.Sandboxes, func(s *[]Sandbox) { (*s)[0].Process = Unknown[Process](errTest) }) }, "does not answer"}},
	"SUB-SBX-003":  {{"no canary", noProbes, ""}, {"no uname", onProbes(func(p *Probes) { p.Uname = Unknown[string](errTest) }), "uname"}, {"no dmesg", onProbes(func(p *Probes) { p.Dmesg = Unknown[string](errTest) }), "dmesg"}, {"silence", onProbes(func(p *Probes) { p.Uname, p.Dmesg = Known(""), Known("") }), "empty"}},
	"SUB-NET-001": {{"no canary", noProbes, ""}, {"no control", lost(controls), "positive control failed"}, {"the target is not there", lost(inControls), "positive control failed"}, {"not tried", untried(strangers), "did not try"},
		{"nothing to try", onProbes(func(p *Probes) { p.Stranger = nil }), "nothing tried"}, {"no controls at all", onProbes(func(p *Probes) { p.Controls, p.InboundControls = nil, nil }), "no positive control"}},
	"SUB-NET-002": {{"no canary", noProbes, ""}, {"no control", lost(controls), ""}, {"no counter", onProbes(func(p *Probes) { p.Denied = Unknown[Counter](errTest) }), "counter"}, {"the counter stands still", onProbes(func(p *Probes) { p.Denied = Known(Counter{"denied", 4, 4}) }), "from 4 to 4"}, {"another counter", onProbes(func(p *Probes) { p.Denied = Known(Counter{"denied", 40, 4}) }), "from 40 to 4"}},
	"SUB-NET-003": {{"no canary", noProbes, ""}, {"no control", lost(controls), ""}, {"not tried", untried(hosts), ""}},
	"SUB-NET-004": {{"no canary", noProbes, ""}, {"the target is not there", lost(inControls), ""}, {"not tried", untried(strangerAPI), ""}},
	"SUB-NET-005": {{"no canary", noProbes, ""}, {"no control", lost(inControls), ""}, {"not tried", untried(inbound), ""}, {"the target is not there", lost(controls), ""}},
	"SUB-DNS-001": {{"no canary", noProbes, ""}, {"no answer", onProbes(func(p *Probes) { edit(&p.DNS.Reply, func(r *Reply) { *r = Reply{Error: "no such host"} }) }), "no such host"},
		{"not asked", onProbes(func(p *Probes) { p.DNS.Reply = Unknown[Reply](errTest) }), ""}, {"no range", onProbes(func(p *Probes) { p.APIAddress = "" }), "not known"}},
	"SUB-NET-006":  {{"no node", func(f *Facts) { f.Fences = Known([]Fence{}) }, ""}, {"a node is silent", func(f *Facts) { edit(&f.Fences, func(s *[]Fence) { (*s)[0].State = Unknown[FenceState](errTest) }) }, "does not answer"}},
	"SUB-HOST-002": {{"no nodes", func(f *Facts) { f.Nodes = Known([]Fact[Node]{}) }, "none"}, {"a silent node", silentNode, "does not answer"}, {"no version", onNode(func(n *Node) { n.Versions["runc"] = "unknown" }), "unknown"}},
	"SUB-HOST-003": {{"no nodes", func(f *Facts) { f.Nodes = Known([]Fact[Node]{}) }, "none"}, {"a silent node", silentNode, "does not answer"}, {"not told", onNode(func(n *Node) { n.Sandboxes = nil }), "told nothing"}},
	"SUB-HOST-001": {{"no tenants", func(f *Facts) { f.Tenants = Unknown[[]v1alpha1.VirtualCluster](errTest) }, ""}, {"no objects", func(f *Facts) { f.Marked = Unknown[[]Object](errTest) }, ""}},
}

func allChecks() []Check { return append(TenantChecks(), HostChecks()...) }

func TestChecks(t *testing.T) {
	for _, c := range allChecks() {
		t.Run(c.ID, func(t *testing.T) {
			if o := c.Eval(good()); o.Status != Pass || o.Reason != "" {
				t.Errorf("good facts: %s: %s", o.Status, o.Reason)
			}
			want(t, c, Fail, failing[c.ID])
			want(t, c, Error, append([]change{{"nothing was collected", func(f *Facts) { *f = Facts{} }, "not collected"}}, unclear[c.ID]...))
		})
	}
}

func want(t *testing.T, c Check, status Status, changes []change) {
	t.Helper()
	for _, change := range changes {
		f := good()
		change.do(f)
		o := c.Eval(f)
		if o.Status != status || !strings.Contains(o.Reason, change.says) || o.Reason == "" {
			t.Errorf("%s: %s: %q, want %s with %q", change.name, o.Status, o.Reason, status, change.says)
		}
		if status == Fail && len(o.Evidence) == 0 && !strings.Contains(o.Reason, "no ") && !strings.Contains(o.Reason, "not ") {
			t.Errorf("%s: a finding without evidence: %s", change.name, o.Reason)
		}
	}
}

// Every check must be able to fail and to be inconclusive, and be described.
func TestChecksAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range allChecks() {
		if seen[c.ID] {
			t.Errorf("%s is used twice", c.ID)
		}
		seen[c.ID] = true
		if len(failing[c.ID]) == 0 || len(unclear[c.ID]) == 0 {
			t.Errorf("%s has no facts in which it fails, or none that are unclear", c.ID)
		}
		if c.Title == "" || c.Category == "" || c.Remediation == "" || !slices.Contains(severities, c.Severity) {
			t.Errorf("%s is not described", c.ID)
		}
	}
	for _, m := range []map[string][]change{failing, unclear} {
		for id := range m {
			if !seen[id] {
				t.Errorf("facts for %s, which is no check", id)
			}
		}
	}
}

func TestSkips(t *testing.T) {
	f := good()
	onTenant(func(vc *v1alpha1.VirtualCluster) { vc.Spec.Sandbox = "runc-userns" })(f)
	if o := evalKernel(f); o.Status != Skip {
		t.Errorf("a shared kernel: %s", o.Status)
	}
	f = good()
	f.Sandboxes = Known([]Sandbox{})
	if o := evalProcess(f); o.Status != Skip {
		t.Errorf("no pod: %s", o.Status)
	}
	for _, r := range Evaluate(TenantChecks(), good(), false) {
		if (r.Method == Probe) != (r.Status == Skip) {
			t.Errorf("without probing: %s is %s", r.ID, r.Status)
		}
	}
}

// Whatever way a binding names the tenant's identity, it is looked at; what every host
// lets all service accounts read is not.
func TestWriterIsMeant(t *testing.T) {
	subject := func(kind, namespace, name string) rbacv1.Subject {
		return rbacv1.Subject{Kind: kind, Namespace: namespace, Name: name}
	}
	for s, want := range map[rbacv1.Subject]bool{
		subject("ServiceAccount", acmeSpace, tenant.Writer):                true,
		subject("User", "", tenant.WriteUser(acmeSpace)):                   true,
		subject("Group", "", "system:serviceaccounts"):                     true,
		subject("Group", "", "system:serviceaccounts:"+acmeSpace):          true,
		subject("ServiceAccount", "default", tenant.Writer):                false,
		subject("ServiceAccount", acmeSpace, "default"):                    false,
		subject("User", "", tenant.WriteUser("default")):                   false,
		subject("User", "", tenant.Writer):                                 false,
		subject("Group", "", tenant.WriteUser(acmeSpace)):                  false,
		subject("Group", "", "system:serviceaccounts:"+acmeSpace+"-other"): false,
	} {
		if got := meansWriter(acme(), s); got != want {
			t.Errorf("%v: %v", s, got)
		}
	}
	documents := rbacv1.PolicyRule{NonResourceURLs: []string{"/openid/v1/jwks"}, Verbs: []string{"get"}}
	objects := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "update"}}
	if !readOnly([]rbacv1.PolicyRule{documents}) || readOnly([]rbacv1.PolicyRule{documents, objects}) {
		t.Error("rules to read and rules to write are taken for each other")
	}
}
