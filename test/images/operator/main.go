// Command operator is an operator as anybody writes one with controller-runtime, to
// be run in a tenant: it makes a Deployment of each Site (package site), notes it in
// the ConfigMap "register" of its own namespace, and takes the note away, by its
// finalizer, before a Site goes.
//
//	operator            in a pod, with POD_NAMESPACE set
//
// One of its pods reconciles at a time (a Lease says which); all of them serve the
// webhooks on port 9443, with the certificate in /tls, metrics on 8080, health on 8081.
package main

import (
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"sublet.dev/test/images/operator/site"
)

func main() {
	ctrl.SetLogger(klog.Background())
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "operator:", err)
		os.Exit(1)
	}
}

func run() error {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	if err := site.AddToScheme(scheme); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	namespace := os.Getenv("POD_NAMESPACE")
	m, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                  scheme,
		LeaderElection:          true,
		LeaderElectionID:        "operator",
		LeaderElectionNamespace: namespace,
		Metrics:                 metricsserver.Options{BindAddress: ":8080"},
		HealthProbeBindAddress:  ":8081",
		WebhookServer:           webhook.NewServer(webhook.Options{Port: 9443, CertDir: "/tls"}),
	})
	if err != nil {
		return fmt.Errorf("make the manager: %w", err)
	}
	if err := (&reconciler{Client: m.GetClient(), namespace: namespace}).setUp(m); err != nil {
		return fmt.Errorf("make the controller: %w", err)
	}
	if err := ctrl.NewWebhookManagedBy(m, &site.Site{}).WithDefaulter(defaulter{}).WithValidator(validator{}).Complete(); err != nil {
		return fmt.Errorf("make the webhooks: %w", err)
	}
	if err := m.AddReadyzCheck("webhooks", m.GetWebhookServer().StartedChecker()); err != nil {
		return fmt.Errorf("make the readiness check: %w", err)
	}
	return m.Start(ctrl.SetupSignalHandler())
}
