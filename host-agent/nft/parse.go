package nft

import (
	"slices"
	"strings"
)

// parse reads the text of `nft --stateless list table`. Each object is a block
//
//	\tKIND NAME {
//	\t\tLINE
//	\t}
//
// and a list of elements may go on over several lines.
func parse(name, text string) Table {
	t := Table{Name: name}
	var kind, object string
	var block []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "\t\t"):
			block = append(block, strings.TrimSpace(line))
		case line == "\t}":
			t.block(kind, object, block)
		case strings.HasPrefix(line, "\t") && strings.HasSuffix(line, "{"):
			kind, object, _ = strings.Cut(strings.TrimSpace(strings.TrimSuffix(line, "{")), " ")
			block = nil
		}
	}
	return t
}

func (t *Table) block(kind, name string, lines []string) {
	switch kind {
	case "counter":
		t.Counters = append(t.Counters, name)
	case "chain":
		c := Chain{Name: name, Rules: lines}
		if len(lines) > 0 && strings.HasPrefix(lines[0], "type ") {
			c.Hook, c.Rules = hook(lines[0]), lines[1:]
		}
		t.Chains = append(t.Chains, c)
	case "set":
		typ, interval, elements := elementsOf(lines)
		slices.Sort(elements)
		t.Sets = append(t.Sets, Set{Name: name, Type: typ, Interval: interval, Elements: elements})
	case "map":
		typ, _, elements := elementsOf(lines)
		m := Map{Name: name, Type: typ, Elements: map[string]string{}}
		for _, e := range elements {
			key, value, _ := strings.Cut(e, " : ")
			m.Elements[key] = value
		}
		t.Maps = append(t.Maps, m)
	}
}

// hook reads "type filter hook input priority filter; policy accept;".
func hook(line string) *Hook {
	first, _, _ := strings.Cut(line, ";")
	f := strings.Fields(first)
	if len(f) < 6 {
		return &Hook{}
	}
	return &Hook{Type: f[1], Hook: f[3], Priority: strings.Join(f[5:], "")}
}

// elementsOf reads the lines of a set or map. Names are quoted in nft's output;
// here they are not.
func elementsOf(lines []string) (typ string, interval bool, elements []string) {
	for i, line := range lines {
		if t, ok := strings.CutPrefix(line, "type "); ok {
			typ = t
		}
		if f, ok := strings.CutPrefix(line, "flags "); ok {
			interval = strings.Contains(f, "interval")
		}
		if first, ok := strings.CutPrefix(line, "elements = {"); ok {
			all := strings.Join(append([]string{first}, lines[i+1:]...), " ")
			all = strings.ReplaceAll(strings.TrimSuffix(strings.TrimSpace(all), "}"), `"`, "")
			for _, e := range strings.Split(all, ",") {
				if e = strings.TrimSpace(e); e != "" {
					elements = append(elements, e)
				}
			}
			break
		}
	}
	return typ, interval, elements
}
