package measure_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sublet.dev/tenant-apiserver/measure"
)

// succeed makes a meter that goes on from what another has carried.
func succeed(t *testing.T, m *measure.Meter) (*measure.Meter, http.Handler) {
	t.Helper()
	carried, err := m.Carry()
	if err != nil {
		t.Fatal(err)
	}
	next := measure.New(requests, func() (int64, error) { return 4096, nil })
	next.Resume(carried, func(err error) { t.Errorf("lost: %v", err) })
	return next, answering(next)
}

// unchanged are the lines of a text that do not tell how long something took.
func unchanged(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool {
		return strings.Contains(line, "duration_seconds_sum") || strings.Contains(line, "duration_seconds_bucket")
	})
}

// Whoever reads the numbers of meters, each of which goes on from the one before, reads
// those of a single one.
func TestResume(t *testing.T) {
	single := measure.New(requests, func() (int64, error) { return 4096, nil })
	other := answering(single)
	m := measure.New(requests, func() (int64, error) { return 4096, nil })
	h := answering(m)
	for _, life := range [][][2]string{
		{{"GET", "/api/v1/pods"}, {"GET", "/api/v1/pods?watch=true"}, {"PUT", "/apis/apps/v1/namespaces/x/deployments/y"}, {"GET", "/apis/none/v1/x?code=404"}},
		{},
		{{"GET", "/api/v1/pods?watch=true"}, {"GET", "/api/v1/pods"}, {"GET", "/api/v1/nodes"}},
		{{"DELETE", "/api/v1/namespaces/x/pods/y?code=403"}, {"GET", "/apis/none/v1/x?code=404"}},
		{{"GET", "/apis/apps/v1/namespaces/x/deployments/y?watch=true"}, {"GET", "/api/v1/pods"}},
	} {
		for _, r := range life {
			ask(h, r[0], r[1])
			ask(other, r[0], r[1])
		}
		if got, want := unchanged(text(t, m)), unchanged(text(t, single)); !slices.Equal(got, want) {
			t.Fatalf("after %v:\n%s\nwant\n%s", life, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		m, h = succeed(t, m)
	}
	if got := text(t, measure.New(requests, nil)); strings.Contains(got, "pods") {
		t.Error("a meter that goes on from nothing has numbers")
	}
}

// The number of series is bounded over all lives, and so is what is carried.
func TestResumeIsBounded(t *testing.T) {
	m := measure.New(requests, nil)
	h := answering(m)
	for life := range 4 {
		for i := range measure.MaxSeries / 2 {
			ask(h, "GET", fmt.Sprintf("/apis/g%d.life%d.example.org/v1/things", i, life))
		}
		m, h = succeed(t, m)
	}
	got := text(t, m)
	if n := strings.Count(got, "\napiserver_request_total{"); n < measure.MaxSeries || n > measure.MaxSeries+20 {
		t.Errorf("%d series", n)
	}
	ask(h, "GET", "/apis/g7.life0.example.org/v1/things")
	if want := `group="g7.life0.example.org",resource="things",scope="cluster",subresource="",verb="LIST",version="v1"} 2`; !strings.Contains(text(t, m), want) {
		t.Error("a kind of requests that was told apart before is not any more")
	}
}

// What was damaged is left out: the numbers begin anew, and somebody is told, once.
func TestResumeFromDamage(t *testing.T) {
	m := measure.New(requests, nil)
	ask(answering(m), "GET", "/api/v1/pods")
	whole, empty := text(t, m), text(t, measure.New(requests, nil))
	carried, err := m.Carry()
	if err != nil {
		t.Fatal(err)
	}
	damaged := [][]byte{{}, []byte("x"), []byte("\x01something else"), append(slices.Clone(carried), 'x')}
	for i := range carried {
		flipped := slices.Clone(carried)
		flipped[i] ^= 0x40
		damaged = append(damaged, flipped, carried[:i])
	}
	lost := 0
	for _, data := range damaged {
		told := 0
		next := measure.New(requests, nil)
		next.Resume(data, func(error) { told++ })
		got := text(t, next)
		text(t, next)
		if told > 1 || told == 1 && got != empty || told == 0 && got != whole && len(data) > 0 {
			t.Fatalf("%q: told %d times:\n%s", data, told, got)
		}
		lost += told
		ask(answering(next), "GET", "/api/v1/pods?watch=true")
		text(t, next)
	}
	if lost < len(carried) {
		t.Errorf("of %d that were damaged %d were found to be", len(damaged), lost)
	}
}
