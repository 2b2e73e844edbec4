package policy_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/policy"
)

var (
	keys      = []string{"a/gpu", "b", corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeUnschedulable}
	values    = []string{"", "1", "5"}
	effects   = []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}
	operators = []corev1.TolerationOperator{"", corev1.TolerationOpEqual, corev1.TolerationOpExists, corev1.TolerationOpLt, corev1.TolerationOpGt}
)

// tolerations are all that can be made of the keys, values and effects above.
func tolerations() (all []corev1.Toleration) {
	for _, o := range operators {
		for _, e := range append([]corev1.TaintEffect{""}, effects...) {
			if o == corev1.TolerationOpExists {
				for _, k := range append([]string{""}, keys...) {
					all = append(all, corev1.Toleration{Key: k, Operator: o, Effect: e})
				}
				continue
			}
			for _, k := range keys {
				for _, v := range values {
					all = append(all, corev1.Toleration{Key: k, Operator: o, Value: v, Effect: e})
				}
			}
		}
	}
	return all
}

func patterns() (all []policy.Taint) {
	for _, k := range []string{"a/gpu", "b"} {
		for _, v := range []*string{nil, ptr.To(""), ptr.To("1")} {
			for _, e := range append([]corev1.TaintEffect{""}, effects...) {
				all = append(all, policy.Taint{Key: k, Value: v, Effect: e})
			}
		}
	}
	return all
}

// A host pod tolerates a taint if its tenant pod does and the plan, or the taint's
// telling of a node's health, lets it: held against every taint.
func TestTolerations(t *testing.T) {
	tolerated := func(list []corev1.Toleration, taint corev1.Taint) bool {
		for _, x := range list {
			if x.ToleratesTaint(klog.Background(), &taint, true) {
				return true
			}
		}
		return false
	}
	allows := append([][]policy.Taint{nil, {{Key: "b"}, {Key: "a/gpu", Value: ptr.To("5"), Effect: corev1.TaintEffectNoExecute}}}, nil)
	for _, p := range patterns() {
		allows = append(allows, []policy.Taint{p})
	}
	yes, no := 0, 0
	for _, allowed := range allows {
		for _, asked := range tolerations() {
			host := policy.Tolerations([]corev1.Toleration{asked}, allowed)
			for _, k := range keys {
				for _, v := range values {
					for _, e := range effects {
						taint := corev1.Taint{Key: k, Value: v, Effect: e}
						may := e == corev1.TaintEffectNoExecute && (k == corev1.TaintNodeNotReady || k == corev1.TaintNodeUnreachable)
						for _, p := range allowed {
							may = may || p.Covers(taint)
						}
						want := may && tolerated([]corev1.Toleration{asked}, taint)
						if got := tolerated(host, taint); got != want {
							t.Fatalf("%+v with %v: %+v tolerates %v: %v, want %v", asked, allowed, host, taint.ToString(), got, want)
						}
						if want {
							yes++
						} else {
							no++
						}
					}
				}
			}
		}
	}
	if yes == 0 || no == 0 {
		t.Errorf("%d tolerated, %d not", yes, no)
	}
}

// The tolerations that the API gives every pod arrive as they are, with their seconds.
func TestTolerationsOfNodeHealth(t *testing.T) {
	seconds := []corev1.Toleration{
		{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](300)},
		{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](0)},
	}
	if got := policy.Tolerations(seconds, nil); !equality.Semantic.DeepEqual(got, seconds) {
		t.Errorf("%+v", got)
	}
	for _, everything := range []corev1.Toleration{{Operator: corev1.TolerationOpExists}, {Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](7)}} {
		got := policy.Tolerations([]corev1.Toleration{everything}, nil)
		if len(got) != 2 || !equality.Semantic.DeepEqual(got[0].TolerationSeconds, everything.TolerationSeconds) {
			t.Errorf("%+v: %+v", everything, got)
		}
	}
}

func TestTaintString(t *testing.T) {
	for want, p := range map[string]policy.Taint{
		"k=*:*": {Key: "k"}, "k=:NoSchedule": {Key: "k", Value: ptr.To(""), Effect: corev1.TaintEffectNoSchedule}, "k=v:*": {Key: "k", Value: ptr.To("v")},
	} {
		if got := fmt.Sprint(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What a pod tolerates can grow and change its seconds; merging again changes nothing.
func TestMergeTolerations(t *testing.T) {
	seconds := func(key string, n int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &n}
	}
	for name, c := range map[string]struct{ have, want, merged []corev1.Toleration }{
		"more":           {[]corev1.Toleration{seconds("a", 1)}, []corev1.Toleration{seconds("a", 1), seconds("b", 2)}, []corev1.Toleration{seconds("a", 1), seconds("b", 2)}},
		"fewer":          {[]corev1.Toleration{seconds("a", 1), seconds("b", 2)}, []corev1.Toleration{seconds("b", 2)}, []corev1.Toleration{seconds("a", 1), seconds("b", 2)}},
		"other seconds":  {[]corev1.Toleration{seconds("a", 1)}, []corev1.Toleration{seconds("a", 3)}, []corev1.Toleration{seconds("a", 3)}},
		"twice the same": {[]corev1.Toleration{seconds("a", 1)}, []corev1.Toleration{seconds("a", 1), seconds("a", 3)}, []corev1.Toleration{seconds("a", 1), seconds("a", 3)}},
	} {
		got := policy.MergeTolerations(c.have, c.want)
		if !equality.Semantic.DeepEqual(got, c.merged) {
			t.Errorf("%s: %+v", name, got)
		}
		if again := policy.MergeTolerations(got, c.want); !equality.Semantic.DeepEqual(again, got) {
			t.Errorf("%s, again: %+v", name, again)
		}
	}
}
