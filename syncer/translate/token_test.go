package translate

import (
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTokenIsReplacedInTime: at four fifths of its life, and not at once again if it has
// none left when it comes.
func TestTokenIsReplacedInTime(t *testing.T) {
	now, token := time.Unix(1_000_000, 0), Token{Seconds: 3600}
	for name, c := range map[string]struct{ life, fresh time.Duration }{
		"an hour":      {time.Hour, 48 * time.Minute},
		"ten seconds":  {10 * time.Second, leastFresh},
		"over already": {-24 * time.Hour, leastFresh},
	} {
		secret := Translation{Tenant: testTenant}.TokenSecret(plainPod(), nil)
		if f := token.Fresh(secret, now); f > 0 {
			t.Fatalf("%s: fresh for %s before it is there", name, f)
		}
		token.Put(secret, &authenticationv1.TokenRequestStatus{Token: "t", ExpirationTimestamp: metav1.NewTime(now.Add(c.life))}, now)
		if f := token.Fresh(secret, now); f != c.fresh {
			t.Errorf("%s: fresh for %s, want %s", name, f, c.fresh)
		}
		if f := token.Fresh(secret, now.Add(c.fresh)); f > 0 {
			t.Errorf("%s: fresh for %s after that", name, f)
		}
	}
}
