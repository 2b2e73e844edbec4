package main

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"sublet.dev/test/images/operator/site"
)

// mostReplicas is what a Site may ask for.
const mostReplicas = 5

// defaulter is the mutating webhook: it greets where nobody else does.
type defaulter struct{}

func (defaulter) Default(_ context.Context, s *site.Site) error {
	if s.Spec.Greeting == "" {
		s.Spec.Greeting = "hello from the webhook"
	}
	return nil
}

// validator is the validating webhook.
type validator struct{}

func (validator) ValidateCreate(_ context.Context, s *site.Site) (admission.Warnings, error) {
	return check(s)
}

func (validator) ValidateUpdate(_ context.Context, _, s *site.Site) (admission.Warnings, error) {
	return check(s)
}

func (validator) ValidateDelete(context.Context, *site.Site) (admission.Warnings, error) {
	return nil, nil
}

func check(s *site.Site) (admission.Warnings, error) {
	if s.Spec.Replicas > mostReplicas {
		return nil, fmt.Errorf("spec.replicas: %d are more than %d", s.Spec.Replicas, mostReplicas)
	}
	if s.Spec.Replicas == 0 {
		return admission.Warnings{"a site without replicas serves nobody"}, nil
	}
	return nil, nil
}
