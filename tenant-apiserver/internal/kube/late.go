package kube

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
	"k8s.io/kubernetes/pkg/controller"
)

// late are the controllers that begin with the first object of one of the named
// resources, because they have nothing to do before: most control planes use few of
// them. Among the resources are those that a controller has to clean up after a
// restart. The `kubernetes` Service and its Endpoints are in every control plane and
// do not count.
var late = map[string][]schema.GroupResource{
	names.EndpointsController:                        {{Resource: "services"}, {Resource: "endpoints"}},
	names.EndpointSliceController:                    {{Resource: "services"}},
	names.EndpointSliceMirroringController:           {{Resource: "endpoints"}},
	names.ReplicationControllerController:            {{Resource: "replicationcontrollers"}},
	names.PodGarbageCollectorController:              {{Resource: "pods"}},
	names.ResourceQuotaController:                    {{Resource: "resourcequotas"}},
	names.DaemonSetController:                        {{Group: "apps", Resource: "daemonsets"}},
	names.JobController:                              {{Group: "batch", Resource: "jobs"}},
	names.DeploymentController:                       {{Group: "apps", Resource: "deployments"}},
	names.ReplicaSetController:                       {{Group: "apps", Resource: "replicasets"}},
	names.HorizontalPodAutoscalerController:          {{Group: "autoscaling", Resource: "horizontalpodautoscalers"}},
	names.DisruptionController:                       {{Group: "policy", Resource: "poddisruptionbudgets"}, {Resource: "pods"}},
	names.StatefulSetController:                      {{Group: "apps", Resource: "statefulsets"}},
	names.CronJobController:                          {{Group: "batch", Resource: "cronjobs"}},
	names.CertificateSigningRequestCleanerController: {{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}},
	names.CertificateSigningRequestSigningController: {{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}},
	names.PersistentVolumeClaimProtectionController:  {{Resource: "persistentvolumeclaims"}},
	names.PersistentVolumeProtectionController:       {{Resource: "persistentvolumes"}},
	names.VolumeAttributesClassProtectionController:  {{Group: "storage.k8s.io", Resource: "volumeattributesclasses"}},
	names.EphemeralVolumeController:                  {{Resource: "pods"}},
	names.TaintEvictionController:                    {{Resource: "pods"}},
	names.TTLAfterFinishedController:                 {{Group: "batch", Resource: "jobs"}},
	names.ValidatingAdmissionPolicyStatusController:  {{Group: "admissionregistration.k8s.io", Resource: "validatingadmissionpolicies"}},
}

// buildRetry is the pause before a controller that could not be built is tried again.
const buildRetry = time.Second

// lateController is one that is not built yet.
type lateController struct {
	name  string
	build buildController
}

// buildController is how upstream's descriptions build a controller.
type buildController = func(context.Context, kcm.ControllerContext) (kcm.Controller, error)

// podsByNode gives a controller the index of pods by node that it looks into and does
// not make: upstream's node lifecycle controller makes it, which tenants do not have.
func podsByNode(build buildController) buildController {
	return func(ctx context.Context, c kcm.ControllerContext) (kcm.Controller, error) {
		if err := controller.AddPodNodeNameIndexer(c.InformerFactory.Core().V1().Pods().Informer()); err != nil {
			return nil, fmt.Errorf("index of pods by node: %w", err)
		}
		return build(ctx, c)
	}
}

// takeLate takes the late controllers out of upstream's descriptions.
func takeLate(descriptors map[string]*kcm.ControllerDescriptor) []lateController {
	var taken []lateController
	for name := range late {
		if d, ok := descriptors[name]; ok {
			l := lateController{name, d.BuildController}
			if name == names.TaintEvictionController {
				l.build = podsByNode(l.build)
			}
			taken = append(taken, l)
			delete(descriptors, name)
		}
	}
	return taken
}

// await sends the late controllers to due, each when there is something for it.
func (c *controllers) await(due chan<- lateController) {
	except := []string{
		c.prefix(schema.GroupResource{Resource: "services"}) + "default/kubernetes",
		c.prefix(schema.GroupResource{Resource: "endpoints"}) + "default/kubernetes",
	}
	for _, l := range c.late {
		var prefixes []string
		for _, resource := range late[l.name] {
			prefixes = append(prefixes, c.prefix(resource))
		}
		c.onFirst(prefixes, except, func() { due <- l })
	}
}

// begin builds a late controller. The informers run already, so its handlers are held
// until it is whole. An error is logged, and the controller is due again after a
// pause, in which others are built.
func (c *controllers) begin(ctx context.Context, l lateController, due chan<- lateController) kcm.Controller {
	release := c.hold()
	built, err := l.build(ctx, c.ctx)
	release()
	if err != nil {
		klog.FromContext(ctx).Error(err, "A controller cannot be built; trying again", "controller", l.name)
		time.AfterFunc(buildRetry, func() { due <- l })
		return nil
	}
	c.ctx.InformerFactory.Start(ctx.Done())
	c.ctx.ObjectOrMetadataInformerFactory.Start(ctx.Done())
	return built
}
