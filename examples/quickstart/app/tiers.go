package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// The places where the manifests mount what the tiers need.
const (
	greetingFile = "/etc/quickstart/greeting" // from the ConfigMap
	passwordFile = "/etc/secret/password"     // from the Secret
)

// web is the first tier.
func web(ctx context.Context, _ []string) error {
	counterURL := os.Getenv("COUNTER_URL")
	if counterURL == "" {
		return errors.New("COUNTER_URL is not set: it names the second tier, for example http://counter:9090")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		visits, err := count(r.Context(), counterURL)
		if err != nil {
			slog.Error("the second tier did not answer", "err", err)
			http.Error(w, "the second tier did not answer", http.StatusBadGateway)
			return
		}
		greeting, err := trimmed(greetingFile)
		if err != nil {
			slog.Error("no greeting", "err", err)
			http.Error(w, "no greeting", http.StatusInternalServerError)
			return
		}
		host, _ := os.Hostname() // only for show
		fmt.Fprintf(w, "%s: visit %s, answered by %s\n", greeting, visits, host)
	})
	return serve(ctx, ":8080", mux)
}

// count asks the second tier to count one visit and returns how many there were.
func count(ctx context.Context, url string) (string, error) {
	password, err := trimmed(passwordFile)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return "", err
	}
	req.SetBasicAuth("web", password)
	return do(req)
}

// counter is the second tier.
func counter(ctx context.Context, _ []string) error {
	var visits atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		want, err := trimmed(passwordFile)
		if err != nil {
			slog.Error("no password", "err", err)
			http.Error(w, "no password", http.StatusInternalServerError)
			return
		}
		if _, got, ok := r.BasicAuth(); !ok || subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
			http.Error(w, "wrong password", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, visits.Add(1))
	})
	return serve(ctx, ":9090", mux)
}

// serve answers on addr until ctx ends, then lets open requests finish.
func serve(ctx context.Context, addr string, h http.Handler) error {
	srv := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.ListenAndServe() }()
	slog.Info("serving", "addr", addr)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// do sends req and returns the answer's body when its status is 200.
func do(req *http.Request) (string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", req.URL, resp.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

func trimmed(file string) (string, error) {
	b, err := os.ReadFile(file)
	return strings.TrimSpace(string(b)), err
}
