package audit

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

// report is an audit of one tenant and the host over facts.
func report(f *Facts) *Report {
	tenant := Subject{Kind: SubjectTenant, Name: "acme", UID: acmeUID, Namespace: acmeSpace, Sandbox: "gvisor", Results: Evaluate(TenantChecks(), f, true)}
	tenant.Coverage, tenant.Verdict = cover(tenant.Results)
	host := Subject{Kind: SubjectHost, Name: "host", Results: Evaluate(HostChecks(), f, true)}
	host.Coverage, host.Verdict = cover(host.Results)
	r := &Report{Schema: Schema, Run: "0f3a9c1e", Started: when, Finished: when, Probing: true, FailOn: Low, Subjects: []Subject{tenant, host}}
	r.conclude()
	return r
}

// broken has a finding by probe, one by configuration and something unclear.
func broken() *Facts {
	f := good()
	reached(strangers)(f)
	addKey(map[string]string{"pcns.x": "y"}, nil)(f)
	noFence(f)
	return f
}

func noFence(f *Facts) {
	f.Fences = Known([]Fence{{Node: "node-1", State: Unknown[FenceState](errTest)}})
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", name, got)
	}
}

func TestReports(t *testing.T) {
	for name, f := range map[string]*Facts{"good": good(), "broken": broken()} {
		r := report(f)
		var json, table bytes.Buffer
		if err := r.WriteJSON(&json); err != nil {
			t.Fatal(err)
		}
		if err := r.WriteTable(&table, false); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".json", json.Bytes())
		golden(t, name+".txt", table.Bytes())
	}
}

func TestExitCodes(t *testing.T) {
	medium := func(f *Facts) { f.Quotas = Known(f.Quotas.value[:0]) }
	for _, c := range []struct {
		name   string
		facts  func(*Facts)
		failOn Severity
		want   int
		says   Status
	}{
		{"nothing found", func(*Facts) {}, Low, ExitPass, Pass},
		{"a finding", reached(strangers), Low, ExitFindings, Fail},
		{"at the threshold", medium, Medium, ExitFindings, Fail},
		{"below the threshold", medium, High, ExitPass, Fail},
		{"inconclusive", noFence, Low, ExitInconclusive, Error},
		{"below the threshold and inconclusive", func(f *Facts) { medium(f); noFence(f) }, High, ExitInconclusive, Fail},
		{"a finding and inconclusive", func(f *Facts) { medium(f); noFence(f) }, Low, ExitFindings, Fail},
	} {
		f := good()
		c.facts(f)
		r := report(f)
		r.FailOn = c.failOn
		if got := r.ExitCode(); got != c.want || r.Verdict != c.says {
			t.Errorf("%s: exit code %d, verdict %s; want %d, %s", c.name, got, r.Verdict, c.want, c.says)
		}
	}
	r := report(good())
	r.Problems = []string{"a canary is left"}
	r.conclude()
	if r.ExitCode() != ExitInconclusive || r.Verdict != Error {
		t.Errorf("with a problem: exit code %d, verdict %s", r.ExitCode(), r.Verdict)
	}
}

// An audit that checked nothing has shown nothing.
func TestNothingCheckedIsNoPass(t *testing.T) {
	if _, v := cover(nil); v == Pass {
		t.Error("no results pass")
	}
	if _, v := cover([]Result{{Outcome: Outcome{Status: Skip}}}); v == Pass {
		t.Error("only skipped results pass")
	}
	r := &Report{}
	if r.conclude(); r.Verdict == Pass {
		t.Error("no subjects pass")
	}
}

func TestTableShowsNoControlCharacters(t *testing.T) {
	f := good()
	addKey(map[string]string{"a\x1b[2J\u202e\r\n": "x"}, nil)(f)
	r := report(f)
	r.Subjects[0].Name = "ac\x1bme"
	r.Subjects[0].Results[0].Observed = "\u009b31m\x07"
	var out bytes.Buffer
	if err := r.WriteTable(&out, false); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"\x1b", "\u202e", "\r", "\u009b", "\x07"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("the table contains %q", bad)
		}
	}
	out.Reset()
	if err := r.WriteTable(&out, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "\x1b[31;1m") || strings.Contains(out.String(), "\x1b[2J") {
		t.Error("colours: none, or the tenant's")
	}
}

func TestParseSeverity(t *testing.T) {
	for in, want := range map[string]Severity{"HIGH": High, "low": Low, "info": Info} {
		if got, err := ParseSeverity(in); err != nil || got != want {
			t.Errorf("ParseSeverity(%q) = %q, %v", in, got, err)
		}
	}
	if _, err := ParseSeverity("worst"); err == nil || !strings.Contains(err.Error(), "critical") {
		t.Errorf("ParseSeverity(worst): %v", err)
	}
}
