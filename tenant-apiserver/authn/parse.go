package authn

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
)

// MaxSize is how many bytes a configuration may have.
const MaxSize = 128 << 10

// Rules that hold for every issuer, in upstream's terms.
var reserved = []apiserver.UserValidationRule{
	{Expression: "!user.username.startsWith('system:')", Message: "users of an issuer cannot be system: users"},
	{Expression: "user.groups.all(group, !group.startsWith('system:'))", Message: "users of an issuer cannot be in system: groups"},
}

var codecs = sync.OnceValue(func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict)
})

// compiler is costly to make, and safe for concurrent use.
var compiler = sync.OnceValue(authenticationcel.NewDefaultCompiler)

// Parse reads an AuthenticationConfiguration, as YAML or JSON, and adds the rules that
// hold here. Nothing is a configuration without issuers. What is wrong with it is in
// the error, with the field. own are the issuers of the tenant's own tokens, which
// nobody else can be.
func Parse(data []byte, own ...string) (*apiserver.AuthenticationConfiguration, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return &apiserver.AuthenticationConfiguration{}, nil
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("the authentication configuration has %d bytes, and %d are allowed", len(data), MaxSize)
	}
	decoded, err := runtime.Decode(codecs().UniversalDecoder(), data)
	if err != nil {
		return nil, fmt.Errorf("read the authentication configuration: %w", err)
	}
	c, ok := decoded.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("read the authentication configuration: it is a %T", decoded)
	}
	if c.Anonymous != nil {
		return nil, errors.New("authentication configuration: anonymous: cannot be changed")
	}
	if err := validation.ValidateAuthenticationConfiguration(compiler(), c, own).ToAggregate(); err != nil {
		return nil, fmt.Errorf("authentication configuration: %w", err)
	}
	for i := range c.JWT {
		reserve(&c.JWT[i])
	}
	return c, nil
}

// reserve adds the rules that an issuer's configuration does not have itself.
func reserve(j *apiserver.JWTAuthenticator) {
	for _, r := range reserved {
		has := slices.ContainsFunc(j.UserValidationRules, func(o apiserver.UserValidationRule) bool { return o.Expression == r.Expression })
		if !has {
			j.UserValidationRules = append(j.UserValidationRules, r)
		}
	}
}
