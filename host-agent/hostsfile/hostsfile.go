// Package hostsfile gives the pods of tenants that have a subdomain their full names
// in /etc/hosts, where software looks that asks for its own (`hostname -f`).
//
// Flow: the kubelet writes a pod's file before it creates each container of the pod,
// without a full name: the host pod has no subdomain, for the kubelet would join it to
// the host's namespace, which no tenant is to see. [Complete] is called next, before
// the container exists, and joins it to the tenant's own namespace instead. What it
// needs to know is in annotations of the host pod, which only the syncer writes.
//
// It never makes a file, follows no link and touches no other file than the one that
// the kubelet itself has written for the pod: a volume that a tenant mounts at
// /etc/hosts is the tenant's.
package hostsfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"k8s.io/apimachinery/pkg/util/validation"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/isolation/tenant"
)

const (
	// mountPoint is where containers have the file.
	mountPoint = "/etc/hosts"
	// maxSize is more than the aliases of one pod can take in its object, in bytes.
	maxSize = 4 << 20
)

// Complete puts the pod's full name into the hosts file with which a container is about
// to be created. podsDir is the directory in which the kubelet keeps its pods. A pod
// without a subdomain, and a container with a file of its own, is left as it is.
func Complete(podsDir string, pod *runtimev1.PodSandboxConfig, container *runtimev1.ContainerConfig) error {
	names, ok := namesOf(pod)
	if !ok {
		return nil
	}
	// The kubelet's own file and no other (pkg/kubelet, getEtcHostsPath): with another
	// one the path could be a tenant's.
	path := filepath.Join(podsDir, pod.GetMetadata().GetUid(), "etc-hosts")
	if !slices.ContainsFunc(container.GetMounts(), func(m *runtimev1.Mount) bool { return m.ContainerPath == mountPoint && m.HostPath == path }) {
		return nil
	}
	if err := rewrite(path, names); err != nil {
		return fmt.Errorf("put the full name of %s into its hosts file: %w", pod.GetMetadata().GetName(), err)
	}
	return nil
}

// names are those of a pod: what the kubelet calls it, its full name and the first part
// of that, which is the hostname unless the full name is.
type names struct{ hostname, full, short string }

// namesOf returns the names of a pod with a subdomain. The parts are checked again, here
// where they would do harm.
func namesOf(pod *runtimev1.PodSandboxConfig) (names, bool) {
	subdomain, namespace := pod.GetAnnotations()[tenant.AnnotationSubdomain], pod.GetAnnotations()[tenant.AnnotationNamespace]
	if subdomain == "" {
		return names{}, false
	}
	domain := fmt.Sprintf("%s.%s.svc.%s", subdomain, namespace, tenant.ClusterDomain)
	n := names{hostname: pod.GetHostname(), short: strings.TrimSuffix(pod.GetHostname(), "."+domain)}
	n.full = n.short + "." + domain
	return n, isLabel(subdomain) && isLabel(namespace) && isName(n.hostname) && isName(n.short) && isName(n.full)
}

func isLabel(s string) bool { return len(validation.IsDNS1123Label(s)) == 0 }
func isName(s string) bool  { return len(validation.IsDNS1123Subdomain(s)) == 0 }

// rewrite changes the file in place: running containers of the pod have it mounted, and
// may write it.
func rewrite(path string, n names) (err error) {
	file, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	content, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return err
	}
	if len(content) > maxSize {
		return fmt.Errorf("%s is larger than %d bytes", path, maxSize)
	}
	content = completed(content, n)
	if _, err := file.WriteAt(content, 0); err != nil {
		return err
	}
	return file.Truncate(int64(len(content)))
}

// completed returns a file of the kubelet's with the full name before the pod's own. The
// pod's lines stand above the first empty one, below which the tenant's aliases begin.
func completed(content []byte, n names) []byte {
	lines := bytes.SplitAfter(content, []byte("\n"))
	for i, line := range lines {
		text := strings.TrimSuffix(string(line), "\n")
		if text == "" {
			break
		}
		ip, name, _ := strings.Cut(text, "\t")
		if address, err := netip.ParseAddr(ip); err != nil || address.IsLoopback() || name != n.hostname {
			continue
		}
		lines[i] = fmt.Appendf(nil, "%s\t%s\t%s\n", ip, n.full, n.short)
	}
	return bytes.Join(lines, nil)
}
