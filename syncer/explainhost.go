package syncer

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/patrol"
	"sublet.dev/syncer/rules"
	"sublet.dev/syncer/translate"
)

// groupVersions are where the host serves the kinds that Explain knows; core v1 for
// those that are not here.
var groupVersions = map[string]schema.GroupVersion{
	"endpointslices":  {Group: "discovery.k8s.io", Version: "v1"},
	"networkpolicies": {Group: "networking.k8s.io", Version: "v1"},
	"ingresses":       {Group: "networking.k8s.io", Version: "v1"},
}

// ExplainHost is Explain for the tenant's object that an object in its host namespace
// was made for. What was made for a pod, or for an object of a plan's rule, beside it
// explains that.
func (s *Syncer) ExplainHost(ctx context.Context, resource, hostName string) (*Explanation, error) {
	at, ok := s.onHostAs(resource)
	if !ok {
		return nil, fmt.Errorf("%s: %s: %w", resource, s.customs.whyNot(resource), ErrNotFound)
	}
	hostObject, err := s.hostMarks.Resource(at).Namespace(s.config.Tenant.HostNamespace).Get(ctx, hostName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%s %s on the host: %w", resource, hostName, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read the host's %s %s: %w", resource, hostName, err)
	}
	owner, verdict := patrol.Judge(s.config.Tenant.ID, hostObject)
	if verdict != patrol.Whole && verdict != patrol.Damaged {
		return nil, fmt.Errorf("%s %s on the host does not say which object of the tenant's it is for: %w", resource, hostName, ErrNotFound)
	}
	return s.explainOwner(ctx, resource, owner.Name)
}

// onHostAs is where the host serves a resource.
func (s *Syncer) onHostAs(resource string) (schema.GroupVersionResource, bool) {
	if _, known := resources[resource]; known {
		version, ok := groupVersions[resource]
		if !ok {
			version.Version = "v1"
		}
		return version.WithResource(resource), true
	}
	var at schema.GroupVersionResource
	s.customs.each(func(c *custom) {
		if c.kind() == resource && c.rule.ToHost() {
			at = c.rule.Resource()
		}
	})
	return at, at.Resource != ""
}

// explainOwner explains what a host object was made for, by the name in its marks.
func (s *Syncer) explainOwner(ctx context.Context, resource string, name tenant.Name) (*Explanation, error) {
	if definition, object, ok := rules.ReadResult(name); ok {
		return s.ExplainObject(ctx, definition, object)
	}
	if translate.IsAnchors(name) {
		return nil, fmt.Errorf("it holds trust bundles of the tenant's, for all pods that ask for them: %w", ErrNotFound)
	}
	if ingress, derived := strings.CutSuffix(name.Name, translate.SuffixHostnames); derived {
		return s.Explain(ctx, "ingresses", tenant.Name{Namespace: name.Namespace, Name: ingress})
	}
	if object, definition, derived := askedFor(name); derived {
		return s.Explain(ctx, definition, object)
	}
	for _, suffix := range []string{translate.SuffixTokens, translate.SuffixNode, translate.SuffixCertificates} {
		if pod, derived := strings.CutSuffix(name.Name, suffix); derived {
			return s.ExplainPod(ctx, tenant.Name{Namespace: name.Namespace, Name: pod})
		}
	}
	return s.Explain(ctx, resource, name)
}
