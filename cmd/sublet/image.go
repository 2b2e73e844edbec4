package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// nodeImage is an image as a node's agent tells of it.
type nodeImage struct {
	Node  string   `json:"node"`
	Names []string `json:"names"`
	ID    string   `json:"id"`
	Size  uint64   `json:"size"`
}

func newImage(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Short: "Bring images to the nodes, list and remove them",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageErrorf("unknown command %q: use sublet image import, sublet image list or sublet image remove", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	importCmd := &cobra.Command{
		Use: "import FILE", Short: "Import an image archive (docker save, OCI layout) into every node",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageErrorf("give one file: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.importImage(cmd.Context(), args[0]) },
	}
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the images on the nodes", Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions}
	output := addOutput(list, "table", "json", "yaml", "name")
	list.RunE = func(cmd *cobra.Command, _ []string) error { return a.listImages(cmd.Context(), output) }
	cmd.AddCommand(importCmd, list, newImageRemove(a))
	return cmd
}

func newImageRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove an imported image from every node: pods that use its name have it pulled from then on",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageErrorf("give one name of an image: %s", cmd.UseLine())
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.removeImage(cmd.Context(), args[0]) },
	}
}

// nodes are the nodes that answer, and the way to their agents: the host API's
// proxy.
type nodes struct {
	names []string
	rest  rest.Interface
}

func (a *app) nodes(ctx context.Context) (nodes, error) {
	c, err := a.hostConfig()
	if err != nil {
		return nodes{}, err
	}
	api, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nodes{}, fmt.Errorf("make a client of the host API: %w", err)
	}
	list, err := api.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nodes{}, fmt.Errorf("list the nodes: %w", explain(err))
	}
	n := nodes{rest: api.CoreV1().RESTClient()}
	for _, node := range list.Items {
		ready := slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
		if !ready {
			return nodes{}, fmt.Errorf("node %s is not ready: wait for it, or delete it if it is gone", node.Name)
		}
		n.names = append(n.names, node.Name)
	}
	if len(n.names) == 0 {
		return nodes{}, errors.New("there is no node yet: is `sublet up` ready?")
	}
	return n, nil
}

// images asks a node's agent; body is what is imported, nil to list.
func (n nodes) images(ctx context.Context, node string, body io.Reader) ([]nodeImage, error) {
	verb := "GET"
	if body != nil {
		verb = "POST"
	}
	r := n.request(verb, node)
	if body != nil {
		r = r.Body(body).SetHeader("Content-Type", "application/x-tar")
	}
	data, err := r.DoRaw(ctx)
	if err != nil {
		return nil, said(node, data, err)
	}
	var images []nodeImage
	if err := json.Unmarshal(data, &images); err != nil {
		return nil, fmt.Errorf("node %s: decode its answer: %w", node, err)
	}
	for i := range images {
		images[i].Node = node
	}
	return images, nil
}

// request is one to a node's agent about its images.
func (n nodes) request(verb, node string) *rest.Request {
	return n.rest.Verb(verb).Resource("nodes").Name(node).SubResource("proxy").Suffix("sublet", "images")
}

// said is the error of a node's agent, in its own words if it has said any.
func said(node string, answer []byte, err error) error {
	if text := strings.TrimSpace(string(answer)); text != "" {
		err = errors.New(text)
	} else {
		err = explain(err)
	}
	return fmt.Errorf("node %s: %w", node, err)
}

func (a *app) importImage(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("read the image: %s is not a file", path)
	}
	n, err := a.nodes(ctx)
	if err != nil {
		return err
	}
	for _, node := range n.names {
		if err := a.importTo(ctx, n, node, path); err != nil {
			return fmt.Errorf("import %s: %w", path, err)
		}
	}
	return nil
}

func (a *app) importTo(ctx context.Context, n nodes, node, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	images, err := n.images(ctx, node, f)
	if err != nil {
		return err
	}
	for _, i := range images {
		fmt.Fprintf(a.out, "imported %s (%s) to node %s\n", strings.Join(i.Names, ", "), size(i.Size), node)
	}
	return nil
}

// removeImage removes an image from the nodes that have it.
func (a *app) removeImage(ctx context.Context, name string) error {
	n, err := a.nodes(ctx)
	if err != nil {
		return err
	}
	removed := false
	for _, node := range n.names {
		data, err := n.request("DELETE", node).Param("name", name).DoRaw(ctx)
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return said(node, data, err)
		}
		removed = true
		fmt.Fprintf(a.out, "removed %s from node %s\n", name, node)
	}
	if !removed {
		return &exitError{exitNotFound, fmt.Errorf("no image was imported as %s: `sublet image list` shows what the nodes have", name)}
	}
	return nil
}

func size(n uint64) string {
	q := resource.NewQuantity(int64(n), resource.BinarySI)
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return q.String() + "B"
}

func (a *app) listImages(ctx context.Context, output *outputFlag) error {
	n, err := a.nodes(ctx)
	if err != nil {
		return err
	}
	all := []nodeImage{}
	for _, node := range n.names {
		images, err := n.images(ctx, node, nil)
		if err != nil {
			return fmt.Errorf("list the images: %w", err)
		}
		all = append(all, images...)
	}
	if ok, err := output.print(a.out, all); ok {
		return err
	}
	rows := [][]string{{"IMAGE", "SIZE", "NODE", "ID"}}
	for _, i := range all {
		for _, name := range i.Names {
			if output.value == "name" {
				fmt.Fprintln(a.out, name)
			}
			rows = append(rows, []string{name, size(i.Size), i.Node, i.ID})
		}
	}
	if output.value == "name" {
		return nil
	}
	return table(a.out, rows)
}
