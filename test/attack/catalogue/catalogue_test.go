package catalogue

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sections are how many attacks each section has.
var sections = map[string]int{"A": 15, "B": 32, "C": 14, "D": 10, "F": 12, "G": 12, "I": 10, "J": 9}

var (
	row = regexp.MustCompile(`(?m)^\| ([A-Z]\d\d) \| (.+) \| (.+) \| (.+) \|$`)
	// where are the tests of one folder.
	where = regexp.MustCompile("^`([a-z0-9/-]+)` ((?:(?:Test|Fuzz)[A-Za-z0-9]+(?:, )?)+)$")
)

// problems says what is wrong with a table of attacks; tests gives the names of the
// tests in a folder.
func problems(table string, tests func(folder string) (map[string]bool, error)) []string {
	var found []string
	seen := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(table, -1) {
		number, tested := m[1], m[4]
		if seen[number] {
			found = append(found, number+" is there twice")
		}
		seen[number] = true
		if why, none := strings.CutPrefix(tested, "none: "); none {
			if len(strings.Fields(why)) < 3 {
				found = append(found, number+" is not tested, and does not say why")
			}
			continue
		}
		for part := range strings.SplitSeq(tested, "; ") {
			found = append(found, missing(number, part, tests)...)
		}
	}
	for section, n := range sections {
		for i := 1; i <= n; i++ {
			if number := fmt.Sprintf("%s%02d", section, i); !seen[number] {
				found = append(found, number+" is not there")
			}
		}
	}
	return found
}

// missing says which tests of one folder there are not.
func missing(number, part string, tests func(folder string) (map[string]bool, error)) (found []string) {
	m := where.FindStringSubmatch(part)
	if m == nil {
		return []string{fmt.Sprintf("%s: %q is no folder with tests", number, part)}
	}
	have, err := tests(m[1])
	if err != nil {
		return []string{number + ": " + err.Error()}
	}
	for name := range strings.SplitSeq(m[2], ", ") {
		if !have[name] {
			found = append(found, fmt.Sprintf("%s: there is no %s in %s", number, name, m[1]))
		}
	}
	return found
}

// known are the tests of the folders that were looked into.
var known = map[string]map[string]bool{}

// testsIn lists the tests in a folder of the module.
func testsIn(folder string) (map[string]bool, error) {
	if names, ok := known[folder]; ok {
		return names, nil
	}
	files, err := filepath.Glob(filepath.Join("../../..", folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no tests in %s: %v", folder, err)
	}
	names := map[string]bool{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				names[fn.Name.Name] = true
			}
		}
	}
	known[folder] = names
	return names, nil
}

// TestTable: every attack is in the table, with tests that exist.
func TestTable(t *testing.T) {
	table, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems(string(table), testsIn) {
		t.Error(p)
	}
}

// TestTableCanFail changes the table in the ways in which it could rot.
func TestTableCanFail(t *testing.T) {
	data, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	for name, change := range map[string][2]string{
		"a renamed test":   {"TestNamesInPaths", "TestNamesInPathsX"},
		"a removed folder": {"`test/attack`", "`test/attacks`"},
		"a removed attack": {"| D02 |", "| d02 |"},
		"no reason":        {"`tenant-apiserver/server` TestConversionWebhook |", "none: yes |"},
		"no test, no word": {"`host-agent/dns` TestForward |", "later |"},
		"a number twice":   {"| D02 |", "| D01 |"},
	} {
		if bad := strings.Replace(good, change[0], change[1], 1); bad == good || len(problems(bad, testsIn)) == 0 {
			t.Errorf("%s is not noticed", name)
		}
	}
}
