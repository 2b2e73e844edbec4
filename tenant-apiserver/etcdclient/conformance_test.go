package etcdclient_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/apitesting"
	"k8s.io/apimachinery/pkg/runtime/schema"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	featuregatetesting "k8s.io/component-base/featuregate/testing"

	"sublet.dev/tenant-apiserver/etcdclient"
)

// plain are the tests of upstream's suite that need nothing but the storage.
var plain = map[string]func(context.Context, *testing.T, storage.Interface){
	"CreateWithTTL":                       storagetesting.RunTestCreateWithTTL,
	"CreateWithKeyExist":                  storagetesting.RunTestCreateWithKeyExist,
	"Get":                                 storagetesting.RunTestGet,
	"UnconditionalDelete":                 storagetesting.RunTestUnconditionalDelete,
	"ConditionalDelete":                   storagetesting.RunTestConditionalDelete,
	"DeleteWithSuggestion":                storagetesting.RunTestDeleteWithSuggestion,
	"DeleteWithSuggestionAndConflict":     storagetesting.RunTestDeleteWithSuggestionAndConflict,
	"DeleteWithConflict":                  storagetesting.RunTestDeleteWithConflict,
	"DeleteWithSuggestionOfDeletedObject": storagetesting.RunTestDeleteWithSuggestionOfDeletedObject,
	"ValidateDeletionWithSuggestion":      storagetesting.RunTestValidateDeletionWithSuggestion,
	"ValidateDeletionWithOnlySuggestion":  storagetesting.RunTestValidateDeletionWithOnlySuggestionValid,
	"PreconditionalDeleteWithSuggestion":  storagetesting.RunTestPreconditionalDeleteWithSuggestion,
	"PreconditionalDeleteWithOnly":        storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass,
	"GetListRecursivePrefix":              storagetesting.RunTestGetListRecursivePrefix,
	"GuaranteedUpdateWithTTL":             storagetesting.RunTestGuaranteedUpdateWithTTL,
	"GuaranteedUpdateWithConflict":        storagetesting.RunTestGuaranteedUpdateWithConflict,
	"GuaranteedUpdateWithSuggestion":      storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict,
	"ListPaging":                          storagetesting.RunTestListPaging,
	"NamespaceScopedList":                 storagetesting.RunTestNamespaceScopedList,
	"KeySchema":                           storagetesting.RunTestKeySchema,
	"Watch":                               storagetesting.RunTestWatch,
	"ClusterScopedWatch":                  storagetesting.RunTestClusterScopedWatch,
	"NamespaceScopedWatch":                storagetesting.RunTestNamespaceScopedWatch,
	"DeleteTriggerWatch":                  storagetesting.RunTestDeleteTriggerWatch,
	"WatchFromNonZero":                    storagetesting.RunTestWatchFromNonZero,
	"DelayedWatchDelivery":                storagetesting.RunTestDelayedWatchDelivery,
	"WatchContextCancel":                  storagetesting.RunTestWatchContextCancel,
	"WatcherTimeout":                      storagetesting.RunTestWatcherTimeout,
	"WatchDeleteEventObjectHaveLatestRV":  storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV,
	"WatchInitializationSignal":           storagetesting.RunTestWatchInitializationSignal,
	"SendInitialEventsCompatibility":      storagetesting.RunSendInitialEventsBackwardCompatibility,
	"WatchSemantics":                      storagetesting.RunWatchSemantics,
	"WatchSemanticInitialEvents":          storagetesting.RunWatchSemanticInitialEventsExtended,
	"WatchListMatchSingle":                storagetesting.RunWatchListMatchSingle,
}

// withHandles are the ones that look behind the storage, or change it.
var withHandles = map[string]func(context.Context, *testing.T, *upstream){
	"Create": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestCreate(ctx, t, u, u.checkStored)
	},
	"GuaranteedUpdate": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestGuaranteedUpdate(ctx, t, u, u.checkStored)
	},
	"GuaranteedUpdateChecksStoredData": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestGuaranteedUpdateChecksStoredData(ctx, t, u)
	},
	"TransformationFailure": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestTransformationFailure(ctx, t, u)
	},
	"List": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestList(ctx, t, u, u.compact, false, u.client.Kubernetes.(*storagetesting.KubernetesRecorder))
	},
	"ConsistentList": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestConsistentList(ctx, t, u, u.increaseRV, false, true, false)
	},
	"GetListNonRecursive": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestGetListNonRecursive(ctx, t, u.increaseRV, u)
	},
	"ListContinuation": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestListContinuation(ctx, t, u, u.checkCalls)
	},
	"ListPaginationRareObject": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestListPaginationRareObject(ctx, t, u, u.checkCalls)
	},
	"ListContinuationWithFilter": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestListContinuationWithFilter(ctx, t, u, u.checkCalls)
	},
	"ListInconsistentContinuation": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestListInconsistentContinuation(ctx, t, u, u.compact)
	},
	"ListResourceVersionMatch": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestListResourceVersionMatch(ctx, t, u)
	},
	"CompactRevision": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestCompactRevision(ctx, t, u, u.increaseRV, u.compact)
	},
	"StatsWithoutSizes": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestStats(ctx, t, u, u.codec, u.swap, false)
	},
	"StatsWithSizes": func(ctx context.Context, t *testing.T, u *upstream) {
		if err := u.EnableResourceSizeEstimation(u.keys); err != nil {
			t.Fatal(err)
		}
		storagetesting.RunTestStats(ctx, t, u, u.codec, u.swap, true)
	},
	"WatchFromZero": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestWatchFromZero(ctx, t, u, u.compact)
	},
	"WatchError": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunTestWatchError(ctx, t, u)
	},
	"WatchErrorIsBlockingFurtherEvents": func(ctx context.Context, t *testing.T, u *upstream) {
		storagetesting.RunWatchErrorIsBlockingFurtherEvents(ctx, t, u)
	},
}

func TestConformance(t *testing.T) {
	for name, run := range plain {
		t.Run(name, func(t *testing.T) { run(t.Context(), t, newUpstream(t)) })
	}
	for name, run := range withHandles {
		t.Run(name, func(t *testing.T) { run(t.Context(), t, newUpstream(t)) })
	}
}

// TestConformanceProgress runs the tests that wait for progress notices, which
// do not come by themselves within their patience otherwise.
func TestConformanceProgress(t *testing.T) {
	often := func(s *setup) { s.options = append(s.options, etcdclient.WithProgressInterval(time.Second)) }
	t.Run("ProgressNotify", func(t *testing.T) {
		u := newUpstream(t, often)
		storagetesting.RunOptionalTestProgressNotify(t.Context(), t, u, u.increaseRV)
	})
	t.Run("WatchDispatchBookmarkEvents", func(t *testing.T) {
		storagetesting.RunTestWatchDispatchBookmarkEvents(t.Context(), t, newUpstream(t, often), false)
	})
}

func gate(t *testing.T, name featuregate.Feature, on bool) {
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, name, on)
}

// TestConformanceGates runs the tests that want a feature on or off.
func TestConformanceGates(t *testing.T) {
	t.Run("WatchSemanticsSerialDecode", func(t *testing.T) {
		gate(t, features.ConcurrentWatchObjectDecode, false)
		storagetesting.RunWatchSemantics(t.Context(), t, newUpstream(t))
	})
	unsafeDelete := features.AllowUnsafeMalformedObjectDeletion
	t.Run("WatchWithUnsafeDelete", func(t *testing.T) {
		gate(t, unsafeDelete, true)
		storagetesting.RunTestWatchWithUnsafeDelete(t.Context(), t, newUpstream(t), corruptObject(t))
	})
	t.Run("GetListWithErrorAggregation", func(t *testing.T) {
		gate(t, unsafeDelete, true)
		u := newUpstream(t)
		u.Interface = etcd3.NewStoreWithUnsafeCorruptObjectDeletion(u.Interface, schema.GroupResource{Resource: "pods"})
		storagetesting.RunTestGetListWithErrorAggregation(t.Context(), t, u, corruptObject(t))
	})
	t.Run("GetListWithoutErrorAggregation", func(t *testing.T) {
		gate(t, unsafeDelete, false)
		storagetesting.RunTestGetListWithoutErrorAggregation(t.Context(), t, newUpstream(t), corruptObject(t))
	})
	t.Run("DeleteWithConflictAndMissingExpectedError", func(t *testing.T) {
		gate(t, unsafeDelete, true)
		u, f := newFailingCodec(t)
		storagetesting.RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError(t.Context(), t, u, f.set)
	})
	t.Run("DeleteExpectedDecodeError", func(t *testing.T) {
		gate(t, unsafeDelete, true)
		u, f := newFailingCodec(t)
		storagetesting.RunTestDeleteExpectedTransformOrDecodeError(t.Context(), t, u, f.set)
	})
	t.Run("DeleteExpectedTransformError", func(t *testing.T) {
		gate(t, unsafeDelete, true)
		f := &failing{Transformer: storagetesting.NewPrefixTransformer([]byte(testPrefix), false)}
		u := newUpstream(t, func(s *setup) { s.transformer = f })
		storagetesting.RunTestDeleteExpectedTransformOrDecodeError(t.Context(), t, u, f.set)
	})
	t.Run("DeleteWithSuggestionAndMissingExpectedError", func(t *testing.T) {
		gate(t, unsafeDelete, true)
		storagetesting.RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError(t.Context(), t, newUpstream(t))
	})
}

func newFailingCodec(t *testing.T) (*upstream, *failingCodec) {
	f := &failingCodec{Codec: apitesting.TestCodec(codecs, examplev1.SchemeGroupVersion)}
	return newUpstream(t, func(s *setup) { s.codec = f }), f
}

// TestConformanceIsWhole fails when upstream's suite has a test, or a benchmark,
// that is not run here.
func TestConformanceIsWhole(t *testing.T) {
	const suite = "k8s.io/apiserver/pkg/storage/testing"
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", suite).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", suite, err)
	}
	theirs := map[string]bool{}
	inspect(t, strings.TrimSpace(string(dir)), func(file string, n ast.Node) {
		f, ok := n.(*ast.FuncDecl)
		if ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Run") && !strings.HasSuffix(file, "_test.go") {
			theirs[f.Name.Name] = true
		}
	})
	if len(theirs) < 60 {
		t.Fatalf("upstream's suite has only %d tests: it was moved", len(theirs))
	}
	inspect(t, ".", func(_ string, n ast.Node) {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return
		}
		if x, ok := s.X.(*ast.Ident); ok && x.Name == "storagetesting" {
			delete(theirs, s.Sel.Name)
		}
	})
	for name := range maps.Keys(theirs) {
		t.Errorf("%s.%s is not run", suite, name)
	}
}

// inspect walks the syntax of all Go files in a folder.
func inspect(t *testing.T, dir string, visit func(file string, n ast.Node)) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".go" {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool { visit(e.Name(), n); return true })
	}
}

func BenchmarkUpstream(b *testing.B) {
	data := storagetesting.PrepareBenchmarkData(10, 100, 50)
	b.Run("WriteThroughput", func(b *testing.B) {
		storagetesting.RunBenchmarkWriteThroughput(b.Context(), b, newUpstream(b), data, false, nil)
	})
	u := newUpstream(b)
	if err := storagetesting.PrecreateBenchmarkPods(b.Context(), u, data); err != nil {
		b.Fatal(err)
	}
	b.Run("List", func(b *testing.B) { storagetesting.RunBenchmarkStoreList(b.Context(), b, u, data, false) })
	b.Run("Stats", func(b *testing.B) { storagetesting.RunBenchmarkStoreStats(b.Context(), b, u) })
}
