package kube

import (
	"cmp"
	"slices"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsinformers "k8s.io/apiextensions-apiserver/pkg/client/informers/externalversions/apiextensions/v1"
	apiextensionslisters "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/client-go/tools/cache"
)

// customGroups keeps the groups of established custom resources in the
// unaggregated /apis document. Upstream does this in the aggregator; the
// aggregated document has them from the API extensions server.
type customGroups struct {
	document discovery.GroupManager
	crds     apiextensionslisters.CustomResourceDefinitionLister

	mu    sync.Mutex
	shown map[string]bool
}

// serveCustomGroups starts to keep document up to date with crds, as soon as
// the informer runs.
func serveCustomGroups(document discovery.GroupManager, crds apiextensionsinformers.CustomResourceDefinitionInformer) error {
	document.AddGroup(apiGroup(apiextensionsv1.GroupName, []string{apiextensionsv1.SchemeGroupVersion.Version}))
	c := &customGroups{document: document, crds: crds.Lister(), shown: map[string]bool{}}
	update := func(any) { c.update() }
	_, err := crds.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: update, DeleteFunc: update, UpdateFunc: func(_, obj any) { c.update() },
	})
	return err
}

func (c *customGroups) update() {
	crds, err := c.crds.List(labels.Everything())
	if err != nil {
		utilruntime.HandleError(err) // a lister over a cache does not fail
		return
	}
	groups := groupsOf(crds)
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.shown {
		if _, ok := groups[name]; !ok {
			c.document.RemoveGroup(name)
			delete(c.shown, name)
		}
	}
	for name, versions := range groups {
		c.document.AddGroup(apiGroup(name, versions))
		c.shown[name] = true
	}
}

// groupsOf lists the served versions of every group, the preferred one first.
func groupsOf(crds []*apiextensionsv1.CustomResourceDefinition) map[string][]string {
	groups := map[string][]string{}
	for _, crd := range crds {
		if !established(crd) {
			continue
		}
		for _, v := range crd.Spec.Versions {
			if v.Served && !slices.Contains(groups[crd.Spec.Group], v.Name) {
				groups[crd.Spec.Group] = append(groups[crd.Spec.Group], v.Name)
			}
		}
	}
	for _, versions := range groups {
		slices.SortFunc(versions, func(a, b string) int {
			return cmp.Or(-version.CompareKubeAwareVersionStrings(a, b), cmp.Compare(a, b))
		})
	}
	return groups
}

func established(crd *apiextensionsv1.CustomResourceDefinition) bool {
	for _, c := range crd.Status.Conditions {
		if c.Type == apiextensionsv1.Established {
			return c.Status == apiextensionsv1.ConditionTrue
		}
	}
	return false
}

func apiGroup(name string, versions []string) metav1.APIGroup {
	g := metav1.APIGroup{Name: name}
	for _, v := range versions {
		g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + v, Version: v})
	}
	g.PreferredVersion = g.Versions[0]
	return g
}
