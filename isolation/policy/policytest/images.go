package policytest

// ImageRegistries are the registries of a plan, and a folder in one.
var ImageRegistries = []string{"registry.example.org", "docker.io/library", "other.example.org:5000/team"}

// Images are names of images; those that are true come from [ImageRegistries], or with
// Sublet.
var Images = map[string]bool{
	"registry.example.org/app:1":                     true,
	"registry.example.org/team/app@sha256:" + digest: true,
	"registry.example.org.evil.example/app":          false,
	"registry.example.org:5000/app":                  false,
	"registry.example.or/g/app":                      false,
	"Registry.example.org/app":                       false,
	"registry.example.org":                           true, // docker.io/library/registry.example.org
	"app":                                            true,
	"app:1":                                          true,
	"library/app":                                    true,
	"docker.io/library/app":                          true,
	"docker.io/app":                                  false, // as it is written
	"index.docker.io/library/app":                    false,
	"team/app":                                       false,
	"librarian/app":                                  false,
	"localhost/app":                                  false,
	"LOCALHOST/library/app":                          false,
	"library:5000/app":                               false,
	"other.example.org:5000/team/app:1":              true,
	"other.example.org:5000/team/more/app":           true,
	"other.example.org:5000/teams/app":               false,
	"other.example.org/team/app":                     false,
	"sublet.dev/canary:1":                            true,
	"sublet.dev.example.org/canary:1":                false,
}

const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
