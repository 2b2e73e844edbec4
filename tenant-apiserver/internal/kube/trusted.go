package kube

import (
	"crypto/x509"
	"fmt"
	"sync"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// trusted are the CAs whose certificates clients may have. They change while the control
// plane runs: upstream's authenticator asks for each request, those that listen are
// told, and who was given them once is replaced (see following).
type trusted struct {
	mu        sync.Mutex
	now       dynamiccertificates.CAContentProvider
	changed   chan struct{} // closed and replaced with every change
	listeners []dynamiccertificates.Listener
}

func newTrusted(bundlePEM []byte) (*trusted, error) {
	now, err := dynamiccertificates.NewStaticCAContent("client-ca", bundlePEM)
	if err != nil {
		return nil, fmt.Errorf("clients' CAs: %w", err)
	}
	return &trusted{now: now, changed: make(chan struct{})}, nil
}

// set makes these the CAs from now on. With an error all is as it was.
func (t *trusted) set(bundlePEM []byte) error {
	next, err := newTrusted(bundlePEM)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if string(t.now.CurrentCABundleContent()) == string(bundlePEM) {
		return nil
	}
	t.now = next.now
	close(t.changed)
	t.changed = make(chan struct{})
	for _, l := range t.listeners {
		l.Enqueue() // puts something into a queue
	}
	return nil
}

// current returns the CAs, and a channel that is closed when they change.
func (t *trusted) current() (dynamiccertificates.CAContentProvider, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now, t.changed
}

// Name implements dynamiccertificates.CAContentProvider.
func (t *trusted) Name() string { return "client-ca" }

// CurrentCABundleContent implements dynamiccertificates.CAContentProvider.
func (t *trusted) CurrentCABundleContent() []byte {
	now, _ := t.current()
	return now.CurrentCABundleContent()
}

// VerifyOptions implements dynamiccertificates.CAContentProvider.
func (t *trusted) VerifyOptions() (x509.VerifyOptions, bool) {
	now, _ := t.current()
	return now.VerifyOptions()
}

// AddListener implements dynamiccertificates.Notifier.
func (t *trusted) AddListener(l dynamiccertificates.Listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.listeners = append(t.listeners, l)
}
