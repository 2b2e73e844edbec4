package kube

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/admission"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"sublet.dev/tenant-apiserver/plan"
)

// limitsName is the plugin's name in metrics and errors.
const limitsName = "SubletLimits"

// limitsAdmission refuses objects above the limits of the tenant's plan. It counts
// in the storage, and not for every object: what is left is used up first. Requests
// under way are not counted yet, so there may be as many more as those at most.
type limitsAdmission struct {
	*admission.Handler
	terms  func() *plan.Terms
	count  func(ctx context.Context, prefix string) (int64, error)
	prefix func(schema.GroupResource) string
	root   string // of all objects

	store func(context.Context) (int64, error)

	mu       sync.Mutex
	left     map[string]budget // by key prefix
	used     int64             // bytes of the store
	measured time.Time         // when used was read
}

// usedFor is how long the store is taken to be as large as it was.
const usedFor = 10 * time.Millisecond

// budget is how many objects may be created before they are counted again.
type budget struct{ left, limit int64 }

var _ admission.ValidationInterface = (*limitsAdmission)(nil)

// registerLimits adds the plugin as the last, so that only what everybody else has
// let pass is counted.
func (p *parts) registerLimits(o *genericoptions.AdmissionOptions) {
	if p.opts.Terms == nil || p.opts.Count == nil {
		return
	}
	o.Plugins.Register(limitsName, func(io.Reader) (admission.Interface, error) {
		return &limitsAdmission{
			Handler: admission.NewHandler(admission.Create, admission.Update),
			terms:   p.opts.Terms, count: p.opts.Count, prefix: p.keyPrefix, root: p.rootPrefix(), store: p.opts.StoreBytes, left: map[string]budget{},
		}, nil
	})
	o.RecommendedPluginOrder = append(o.RecommendedPluginOrder, limitsName)
}

// keyPrefix is where the objects of a resource are in the storage: built-in ones
// where upstream's storage factory says, all others below their group.
func (p *parts) keyPrefix(r schema.GroupResource) string {
	below := r.Group + "/" + r.Resource
	if legacyscheme.Scheme.IsGroupRegistered(r.Group) {
		below = p.storage.ResourcePrefix(r)
	}
	return p.rootPrefix() + strings.Trim(below, "/") + "/"
}

func (p *parts) rootPrefix() string {
	return "/" + strings.Trim(p.run.Etcd.StorageConfig.Prefix, "/") + "/"
}

// Validate implements admission.ValidationInterface.
func (l *limitsAdmission) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	t := l.terms()
	if err := l.checkSize(ctx, a, t); err != nil {
		return err
	}
	if err := l.checkStore(ctx, a, t); err != nil {
		return err
	}
	if a.GetOperation() != admission.Create || a.GetSubresource() != "" || !counts(ctx, a.GetResource().GroupResource()) {
		return nil
	}
	r := a.GetResource().GroupResource()
	if most, ok := t.Limits.Of(r.String()); ok {
		if err := l.take(ctx, a, l.prefix(r), most, r.String(), t); err != nil {
			return err
		}
	}
	if t.Limits.Objects > 0 {
		return l.take(ctx, a, l.root, t.Limits.Objects, "objects in all", t)
	}
	return nil
}

// counts says whether creating such an object keeps one that a tenant is
// answerable for. The nodes and leases that this process makes are not.
func counts(ctx context.Context, r schema.GroupResource) bool {
	switch {
	case r.Group == "authentication.k8s.io", r.Group == "authorization.k8s.io", r == schema.GroupResource{Resource: "bindings"}:
		return false
	case r == schema.GroupResource{Resource: "nodes"}, r.Group == "coordination.k8s.io":
		return !fromLoopback(ctx)
	}
	return true
}

// take uses up one of what is left below a prefix.
func (l *limitsAdmission) take(ctx context.Context, a admission.Attributes, prefix string, limit int64, what string, t *plan.Terms) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.left[prefix]
	if b.limit != limit || b.left <= 0 {
		n, err := l.count(ctx, prefix)
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("count %s: %w", what, err))
		}
		b = budget{left: limit - n, limit: limit}
		if b.left <= 0 {
			delete(l.left, prefix)
			return admission.NewForbidden(a, fmt.Errorf("the plan %s allows %d %s, and there are %d: delete some, or ask your provider for more", t.Plan, limit, what, n))
		}
	}
	if !a.IsDryRun() {
		b.left--
	}
	l.left[prefix] = b
	return nil
}

// checkStore refuses what makes a store larger that is full already. What helps to
// make room goes on: deletes, changes of what is being deleted, and what the
// control plane itself writes about the objects there are.
func (l *limitsAdmission) checkStore(ctx context.Context, a admission.Attributes, t *plan.Terms) error {
	if t.StoreQuota <= 0 || l.store == nil || a.GetSubresource() != "" || !counts(ctx, a.GetResource().GroupResource()) {
		return nil
	}
	if a.GetOperation() != admission.Create {
		o, err := meta.Accessor(a.GetObject())
		if fromLoopback(ctx) || err != nil || o.GetDeletionTimestamp() != nil {
			return nil
		}
	}
	used, err := l.storeBytes(ctx)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("measure the store: %w", err))
	}
	if used <= t.StoreQuota {
		return nil
	}
	return admission.NewForbidden(a, fmt.Errorf("the plan %s allows %s in the store, and %s are in use: delete what is not needed; it counts for up to ten minutes more", t.Plan,
		resource.NewQuantity(t.StoreQuota, resource.BinarySI), resource.NewQuantity(used, resource.BinarySI)))
}

func (l *limitsAdmission) storeBytes(ctx context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.measured) < usedFor {
		return l.used, nil
	}
	n, err := l.store(ctx)
	if err != nil {
		return 0, err
	}
	l.used, l.measured = n, time.Now()
	return n, nil
}

// checkSize refuses objects of clients that are larger than the plan allows.
func (l *limitsAdmission) checkSize(ctx context.Context, a admission.Attributes, t *plan.Terms) error {
	if t.Limits.Size <= 0 || a.GetObject() == nil || fromLoopback(ctx) {
		return nil
	}
	var n byteCount
	if err := encoderFor(a.GetObject(), a.GetKind().GroupVersion()).Encode(a.GetObject(), &n); err != nil {
		return admission.NewForbidden(a, fmt.Errorf("the object cannot be measured: %w", err))
	}
	if int64(n) <= t.Limits.Size {
		return nil
	}
	return admission.NewForbidden(a, fmt.Errorf("the object has %d bytes as JSON, and the plan %s allows %d", n, t.Plan, t.Limits.Size))
}

// encoderFor returns what writes an object as JSON of a version.
func encoderFor(o runtime.Object, version schema.GroupVersion) runtime.Encoder {
	if _, ok := o.(runtime.Unstructured); ok {
		return unstructured.UnstructuredJSONScheme
	}
	switch {
	case legacyscheme.Scheme.IsGroupRegistered(version.Group):
		return encoderOf(legacyscheme.Codecs, version)
	case aggregatorscheme.Scheme.IsGroupRegistered(version.Group):
		return encoderOf(aggregatorscheme.Codecs, version)
	default:
		return encoderOf(apiextensionsapiserver.Codecs, version)
	}
}

func encoderOf(codecs serializer.CodecFactory, version schema.GroupVersion) runtime.Encoder {
	info, _ := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), runtime.ContentTypeJSON)
	return codecs.EncoderForVersion(info.Serializer, version)
}

// byteCount is a writer that counts.
type byteCount int64

func (b *byteCount) Write(p []byte) (int, error) {
	*b += byteCount(len(p))
	return len(p), nil
}
