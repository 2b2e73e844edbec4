package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"
)

// hooks is a server of admission and conversion webhooks.
func hooks() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/validate", admit(func(r *admissionv1.AdmissionRequest, a *admissionv1.AdmissionResponse) {
		a.Allowed = !strings.HasPrefix(r.Name, "bad")
		a.Result = &metav1.Status{Message: "the webhook says no"}
	}))
	mux.HandleFunc("/mutate", admit(func(_ *admissionv1.AdmissionRequest, a *admissionv1.AdmissionResponse) {
		a.Allowed, a.PatchType = true, ptr.To(admissionv1.PatchTypeJSONPatch)
		a.Patch = []byte(`[{"op":"add","path":"/data","value":{"mutated":"yes"}}]`)
	}))
	mux.HandleFunc("/endless", endless)
	mux.HandleFunc("/convert", convert)
	mux.Handle("/redirect", http.RedirectHandler("https://"+w.host.addr+"/inside", http.StatusTemporaryRedirect))
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) { fmt.Fprintf(w, "pod %s", req.URL.Path) })
	return mux
}

// endless answers until nobody listens.
func endless(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	for spaces := bytes.Repeat([]byte(" "), 1<<20); ; {
		if _, err := w.Write(spaces); err != nil {
			return
		}
	}
}

func admit(decide func(*admissionv1.AdmissionRequest, *admissionv1.AdmissionResponse)) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		review := &admissionv1.AdmissionReview{}
		if err := json.NewDecoder(req.Body).Decode(review); err != nil || review.Request == nil {
			http.Error(w, "not a review", http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID}
		decide(review.Request, review.Response)
		review.Request = nil
		json.NewEncoder(w).Encode(review)
	}
}

// convert renames the API version and notes in the object that it did.
func convert(w http.ResponseWriter, req *http.Request) {
	review := &apiextensionsv1.ConversionReview{}
	if err := json.NewDecoder(req.Body).Decode(review); err != nil || review.Request == nil {
		http.Error(w, "not a review", http.StatusBadRequest)
		return
	}
	review.Response = &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
	for _, raw := range review.Request.Objects {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(raw.Raw); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		u.SetAPIVersion(review.Request.DesiredAPIVersion)
		unstructured.SetNestedField(u.Object, "converted", "spec", "note")
		review.Response.ConvertedObjects = append(review.Response.ConvertedObjects, runtime.RawExtension{Object: u})
	}
	review.Request = nil
	json.NewEncoder(w).Encode(review)
}

// hook makes a validating webhook for ConfigMaps of the namespace, and removes it.
func (o *outside) hook(t *testing.T, client admissionregistrationv1.WebhookClientConfig) (remove func()) {
	t.Helper()
	hook := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "hook-"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "hook.example.com", ClientConfig: client, Rules: configMapRules(), NamespaceSelector: o.selector(),
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}
	hooks := o.k.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	hook, err := hooks.Create(t.Context(), hook, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := hooks.Delete(context.Background(), hook.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
}

func configMapRules() []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
	}}
}

func (o *outside) selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: o.ns}}
}

// byService is the webhook behind the Service app.
func (o *outside) byService(path string) admissionregistrationv1.WebhookClientConfig {
	return admissionregistrationv1.WebhookClientConfig{
		Service:  &admissionregistrationv1.ServiceReference{Namespace: o.ns, Name: "app", Path: &path},
		CABundle: o.own.ca,
	}
}

func (o *outside) create(t *testing.T, name string) (*corev1.ConfigMap, error) {
	return o.k.CoreV1().ConfigMaps(o.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
}

// awaitError waits until creating a ConfigMap fails and says all of texts: the API
// server hears of a new webhook a moment later.
func (o *outside) awaitError(t *testing.T, what string, texts ...string) {
	t.Helper()
	var last error
	defer func() {
		if t.Failed() {
			t.Log("the last error:", last)
		}
	}()
	await(t, what, func(context.Context) (bool, error) {
		made, err := o.k.CoreV1().ConfigMaps(o.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "bad-"}}, metav1.CreateOptions{})
		if err == nil {
			return false, o.k.CoreV1().ConfigMaps(o.ns).Delete(t.Context(), made.Name, metav1.DeleteOptions{})
		}
		last = err
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				return false, nil // the rule is known, where it leads may not be yet
			}
		}
		return true, nil
	})
}

func TestWebhooks(t *testing.T) {
	o := newOutside(t, "webhooks", hooks())
	o.expose(t)
	t.Run("by service", func(t *testing.T) {
		defer o.hook(t, o.byService("/validate"))()
		o.awaitError(t, "refusal", "the webhook says no")
		if _, err := o.create(t, "good"); err != nil {
			t.Error(err)
		}
		t.Run("that leads to another tenant", func(t *testing.T) {
			o.lead(t, otherPod, o.other.port)
			o.awaitError(t, "refused connection", "refused", "address of a running pod of this cluster")
			o.lead(t, ownPod, o.own.port)
			o.awaitError(t, "the webhook again", "the webhook says no")
		})
	})
	t.Run("by URL", func(t *testing.T) {
		url := fmt.Sprintf("https://%s:%d/validate", ownHost, o.own.port)
		defer o.hook(t, admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: o.own.ca})()
		o.awaitError(t, "refusal", "the webhook says no")
	})
	for what, address := range hostAddresses() {
		t.Run("by URL to "+what, func(t *testing.T) {
			url := "https://" + address + "/validate"
			defer o.hook(t, admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: o.own.ca})()
			o.awaitError(t, "refused connection", address, "refused")
		})
	}
	t.Run("redirect", func(t *testing.T) {
		defer o.hook(t, o.byService("/redirect"))()
		o.awaitError(t, "refused connection", w.host.addr+"/inside", "refused")
	})
	t.Run("endless answer", func(t *testing.T) {
		defer o.hook(t, o.byService("/endless"))()
		o.awaitError(t, "end of patience", "longer than the API server reads")
	})
	o.untouched(t)
}

func TestMutatingWebhook(t *testing.T) {
	o := newOutside(t, "mutating", hooks())
	o.expose(t)
	hook := &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "mutate"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "mutate.example.com", ClientConfig: o.byService("/mutate"), Rules: configMapRules(), NamespaceSelector: o.selector(),
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}
	if _, err := o.k.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), hook, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	n := 0
	await(t, "mutation", func(context.Context) (bool, error) {
		n++
		made, err := o.create(t, fmt.Sprintf("made-%d", n))
		return err == nil && made.Data["mutated"] == "yes", nil // the rule is known, where it leads may not be yet
	})
}

func TestConversionWebhook(t *testing.T) {
	o := newOutside(t, "conversion", hooks())
	o.expose(t)
	path := "/convert"
	schema := &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
		Type: "object", XPreserveUnknownFields: ptr.To(true),
	}}
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "bars.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "bars", Singular: "bar", Kind: "Bar", ListKind: "BarList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
				{Name: "v1", Served: true, Storage: true, Schema: schema}, {Name: "v2", Served: true, Schema: schema},
			},
			Conversion: &apiextensionsv1.CustomResourceConversion{
				Strategy: apiextensionsv1.WebhookConverter,
				Webhook: &apiextensionsv1.WebhookConversion{
					ClientConfig: &apiextensionsv1.WebhookClientConfig{
						Service: &apiextensionsv1.ServiceReference{Namespace: o.ns, Name: "app", Path: &path}, CABundle: o.own.ca,
					},
					ConversionReviewVersions: []string{"v1"},
				},
			},
		},
	}
	definitions := apiextensions.NewForConfigOrDie(o.admin(t)).ApiextensionsV1().CustomResourceDefinitions()
	if _, err := definitions.Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	d := dynamic.NewForConfigOrDie(o.admin(t))
	v1 := schemaResource("v1")
	bar := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Bar", "metadata": map[string]any{"name": "x"}, "spec": map[string]any{},
	}}
	await(t, "custom resource", func(ctx context.Context) (bool, error) {
		_, err := d.Resource(v1).Namespace(o.ns).Create(ctx, bar, metav1.CreateOptions{})
		return found(err)
	})
	read := func() (string, error) {
		got, err := d.Resource(schemaResource("v2")).Namespace(o.ns).Get(t.Context(), "x", metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		note, _, err := unstructured.NestedString(got.Object, "spec", "note")
		return note, err
	}
	var note string
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("read as v2 last: note %q, %v", note, err)
		}
	}()
	await(t, "reading as v2", func(context.Context) (bool, error) { // where the webhook is may not be known yet
		note, err = read()
		return err == nil && note == "converted", nil
	})
	o.lead(t, otherPod, o.other.port)
	awaitRefusal := func(address string) {
		t.Helper()
		await(t, "refused connection to "+address, func(context.Context) (bool, error) {
			_, err := read()
			return err != nil && strings.Contains(err.Error(), "refused") && strings.Contains(err.Error(), address), nil
		})
	}
	awaitRefusal("")
	for what, address := range hostAddresses() {
		patch := fmt.Sprintf(`{"spec":{"conversion":{"webhook":{"clientConfig":{"service":null,"url":"https://%s/convert"}}}}}`, address)
		if _, err := definitions.Patch(t.Context(), crd.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		awaitRefusal(address)
	}
	o.untouched(t)
}

func schemaResource(version string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "example.com", Version: version, Resource: "bars"}
}
