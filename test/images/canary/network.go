package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"time"
)

// dial opens a TCP connection, or sends a datagram and waits for an answer.
func dial(ctx context.Context, args []string) (result, error) {
	network, address := args[0], args[1]
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	if network == "tcp" {
		return result{Output: c.RemoteAddr().String()}, nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return result{}, err
		}
	}
	if _, err := c.Write([]byte("canary")); err != nil {
		return result{}, err
	}
	answer := make([]byte, 512)
	n, err := c.Read(answer)
	if err != nil {
		return result{}, err
	}
	return result{Output: string(answer[:n])}, nil
}

// get fetches a URL and shows the beginning of the answer.
func get(ctx context.Context, args []string) (result, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	if err != nil {
		return result{}, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return result{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	return result{Status: response.StatusCode, Output: string(body)}, err
}

// resolve looks a name up as every program in the pod would.
func resolve(ctx context.Context, args []string) (result, error) {
	addresses, err := net.DefaultResolver.LookupHost(ctx, args[0])
	slices.Sort(addresses)
	return result{Addresses: addresses}, err
}

// serveCommand serves until ctx ends and returns the exit code.
func serveCommand(ctx context.Context, args []string) int {
	address := ":8080"
	if len(args) > 0 {
		address = args[0]
	}
	if err := serve(ctx, address); err != nil {
		return misuse(err.Error())
	}
	return 0
}

// serve answers HTTP and UDP on one address: who is asked, and by whom.
func serve(ctx context.Context, address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr:              address,
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s asked by %s\n", name, r.RemoteAddr)
		}),
	}
	failed := make(chan error, 2)
	go func() { failed <- server.ListenAndServe() }()
	go func() { failed <- echo(packets, name) }()
	ended := 0
	select {
	case err = <-failed:
		ended = 1
	case <-ctx.Done():
	}
	_ = server.Close()
	_ = packets.Close()
	for ; ended < 2; ended++ {
		<-failed
	}
	return err
}

// echo answers every datagram with the server's name until packets is closed.
func echo(packets net.PacketConn, name string) error {
	for b := make([]byte, 512); ; {
		_, from, err := packets.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := packets.WriteTo([]byte(name), from); err != nil {
			return err
		}
	}
}
