package keyring

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"
)

// kmsTimeout bounds one call of a KMS plugin.
const kmsTimeout = 3 * time.Second

// KMS wraps and unwraps the secrets of keys. It is the service of a KMS v2 plugin
// as Kubernetes defines it.
type KMS = service.Service

// ConnectKMS returns the KMS v2 plugin that listens on a unix socket. It connects
// when it is first used; the connection ends with ctx.
func ConnectKMS(ctx context.Context, socket string) (KMS, error) {
	s, err := kmsv2.NewGRPCService(ctx, "unix://"+socket, "sublet", kmsTimeout)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKMS, socket, err)
	}
	return s, nil
}

// kmsKeyID returns the key that the KMS encrypts with now.
func kmsKeyID(ctx context.Context, kms KMS) (string, error) {
	s, err := kms.Status(ctx)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrKMS, err)
	case s.Healthz != "ok":
		return "", fmt.Errorf("%w: it says that it is not well: %s", ErrKMS, s.Healthz)
	case s.Version != "v2" && s.Version != "v2beta1":
		return "", fmt.Errorf("%w: it speaks version %q, not v2", ErrKMS, s.Version)
	case s.KeyID == "":
		return "", fmt.Errorf("%w: it names no key", ErrKMS)
	}
	return s.KeyID, nil
}

func wrap(ctx context.Context, kms KMS, secret []byte) (*wrapped, error) {
	r, err := kms.Encrypt(ctx, rand.Text(), secret)
	if err == nil && (len(r.Ciphertext) == 0 || r.KeyID == "") {
		err = errors.New("it answered without ciphertext or key")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: encrypt: %w", ErrKMS, err)
	}
	return &wrapped{KeyID: r.KeyID, Ciphertext: r.Ciphertext, Annotations: r.Annotations}, nil
}

func unwrap(ctx context.Context, kms KMS, id string, w *wrapped) ([]byte, error) {
	if kms == nil {
		return nil, fmt.Errorf("%w: key %s is encrypted by a KMS, and none is configured", ErrKMS, id)
	}
	secret, err := kms.Decrypt(ctx, rand.Text(), &service.DecryptRequest{Ciphertext: w.Ciphertext, KeyID: w.KeyID, Annotations: w.Annotations})
	if err == nil && len(secret) != secretBytes {
		err = fmt.Errorf("it answered %d bytes instead of %d", len(secret), secretBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: decrypt key %s with its key %q: %w", ErrKMS, id, w.KeyID, err)
	}
	return secret, nil
}
