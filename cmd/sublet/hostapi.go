package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/manager"
)

// hostConfig returns the provider's way to the host API.
func (a *app) hostConfig() (*rest.Config, error) {
	if err := a.dir.check(); errors.Is(err, errNoDataDir) {
		return nil, fmt.Errorf("%w: start it with `sublet up`, or say where it is with --data-dir or $%s", err, envDataDir)
	} else if err != nil {
		return nil, err
	}
	_, err := os.Stat(a.dir.admin())
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s is root's: run sublet with sudo", a.dir.admin())
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s is missing: `sublet up` writes it when the host API has started", a.dir.admin())
	case err != nil:
		return nil, fmt.Errorf("read the host's kubeconfig: %w", err)
	}
	c, err := clientcmd.BuildConfigFromFlags("", a.dir.admin())
	if err != nil {
		return nil, fmt.Errorf("%s cannot be used: %w; `sublet up` writes it anew", a.dir.admin(), err)
	}
	c.QPS = -1 // no limit of the client's own: the API has priority and fairness
	c.UserAgent = "sublet/" + version
	return c, nil
}

// host returns a client of the host API.
func (a *app) host() (client.Client, error) {
	c, err := a.hostConfig()
	if err != nil {
		return nil, err
	}
	return newHostClient(c)
}

func newHostClient(c *rest.Config) (client.Client, error) {
	ctrl.SetLogger(logr.Discard()) // unless it has one; it would complain on the terminal
	scheme, err := manager.Scheme()
	if err != nil {
		return nil, err
	}
	api, err := client.New(c, client.Options{Scheme: scheme})
	if err != nil {
		return nil, explain(err)
	}
	return api, nil
}

// explain adds to an error of the host API what to do about it.
func explain(err error) error {
	var netErr *url.Error
	var certErr *tls.CertificateVerificationError
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &certErr):
		return fmt.Errorf("the kubeconfig in the data directory is not for the host API that answers (%w): restart `sublet up`, which writes it anew, or give another --data-dir", certErr.Err)
	case errors.As(err, &netErr):
		return fmt.Errorf("the host API does not answer (%w): is `sublet up` running?", netErr.Err)
	case meta.IsNoMatchError(err) || strings.Contains(err.Error(), "no matches for sublet.dev/"):
		return fmt.Errorf("the kubeconfig in the data directory is not for a host API of Sublet (%w): restart `sublet up`, which writes it anew, or give another --data-dir", err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the host API does not accept the kubeconfig in the data directory (%w): restart `sublet up`, which writes it anew", err)
	}
	return err
}

// getTenant reads a tenant.
func getTenant(ctx context.Context, api client.Client, name string) (*v1alpha1.VirtualCluster, error) {
	vc := &v1alpha1.VirtualCluster{}
	err := api.Get(ctx, client.ObjectKey{Name: name}, vc)
	if apierrors.IsNotFound(err) {
		return nil, notFound(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read tenant %q: %w", name, explain(err))
	}
	return vc, nil
}

func notFound(name string) error {
	return &exitError{exitNotFound, fmt.Errorf("tenant %q does not exist: `sublet list` shows those there are", name)}
}

// checkName refuses names that no tenant can have, as wrong usage.
func checkName(name string) error {
	if err := tenant.ValidateName(name); err != nil {
		return &exitError{exitUsage, err}
	}
	return nil
}
