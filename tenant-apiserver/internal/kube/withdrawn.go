package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/cert"
	"k8s.io/klog/v2"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

// Where aggregated API servers are told whose client certificates are good.
const (
	toldTo       = metav1.NamespaceSystem
	toldIn       = "extension-apiserver-authentication"
	toldClientCA = "client-ca-file"
)

// withdrawal takes CAs of this control plane that are given up out of what aggregated
// API servers are told: upstream's controller only ever adds to that. CAs of others stay.
type withdrawal struct {
	parts *parts
	wrote chan struct{} // has a value when somebody has written there
}

// newWithdrawal makes the controller that does so, before the informers run.
func (p *parts) newWithdrawal() (kcm.Controller, error) {
	w := &withdrawal{parts: p, wrote: make(chan struct{}, 1)}
	see := func(obj any) {
		if m, ok := obj.(*corev1.ConfigMap); ok && m.Namespace == toldTo && m.Name == toldIn {
			select {
			case w.wrote <- struct{}{}:
			default:
			}
		}
	}
	_, err := p.informers.Core().V1().ConfigMaps().Informer().AddEventHandlerWithResyncPeriod(cache.ResourceEventHandlerFuncs{
		AddFunc: see, UpdateFunc: func(_, now any) { see(now) },
	}, 0)
	if err != nil {
		return nil, fmt.Errorf("withdrawal of CAs: %w", err)
	}
	return loop{"ca-withdrawal", w.run}, nil
}

// withdrawRetry is the pause before what failed is tried again.
const withdrawRetry = time.Second

// run looks whenever the CAs change or somebody writes, until ctx ends.
func (w *withdrawal) run(ctx context.Context, _ int) {
	for {
		_, changed := w.parts.clientCA.current()
		var again <-chan time.Time
		if err := w.withdraw(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).V(2).Info("A CA that is given up is still told to API servers; trying again", "reason", err)
			again = time.After(withdrawRetry)
		}
		select {
		case <-changed:
		case <-w.wrote:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

func (w *withdrawal) withdraw(ctx context.Context) error {
	told, err := w.parts.informers.Core().V1().ConfigMaps().Lister().ConfigMaps(toldTo).Get(toldIn)
	if apierrors.IsNotFound(err) {
		return nil // upstream's controller makes it
	}
	if err != nil {
		return fmt.Errorf("look what API servers are told: %w", err)
	}
	now := w.parts.clientCA.CurrentCABundleContent()
	kept, changed := without(told.Data[toldClientCA], now)
	if !changed {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": told.ResourceVersion},
		"data":     map[string]any{toldClientCA: kept},
	})
	if err != nil {
		return fmt.Errorf("encode what API servers are told: %w", err)
	}
	_, err = w.parts.client.CoreV1().ConfigMaps(toldTo).Patch(ctx, toldIn, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsConflict(err) { // another write, which is seen, too
		return fmt.Errorf("write what API servers are told: %w", err)
	}
	return nil
}

// without returns the CAs that are told without those of the name of the present ones
// that are not among them, and whether there were any. What is no certificate is
// upstream's controller's affair.
func without(told string, nowPEM []byte) (kept string, changed bool) {
	now, err := cert.ParseCertsPEM(nowPEM)
	if err != nil {
		return told, false
	}
	all, err := cert.ParseCertsPEM([]byte(told))
	if err != nil {
		return told, false
	}
	good := map[string]bool{}
	out := bytes.NewBuffer(nil)
	out.Write(nowPEM)
	for _, c := range now {
		good[string(c.Raw)] = true
	}
	for _, c := range all {
		if good[string(c.Raw)] {
			continue
		}
		if c.Subject.CommonName == now[0].Subject.CommonName {
			changed = true
			continue
		}
		_ = pem.Encode(out, &pem.Block{Type: cert.CertificateBlockType, Bytes: c.Raw}) // to memory
	}
	return out.String(), changed
}
