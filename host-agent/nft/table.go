package nft

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// Table is the content of one table of family inet. Rules and elements are
// written as `nft list` prints them, so that a Table that was read compares equal
// to the one that was applied.
type Table struct {
	Name     string
	Counters []string
	Sets     []Set
	Maps     []Map
	Chains   []Chain
}

// Set is a named set. The parts of an element's key are joined by " . ".
type Set struct {
	Name     string
	Type     string
	Interval bool
	Elements []string
}

// Map is a named map, to verdicts or to counters.
type Map struct {
	Name     string
	Type     string
	Elements map[string]string
}

// Chain is a chain; Hook is nil for one that is only jumped to. Packets that
// reach the end of a hooked chain are accepted.
type Chain struct {
	Name  string
	Hook  *Hook
	Rules []string
}

// Hook is where a chain is called from.
type Hook struct {
	Type, Hook, Priority string
}

// Script returns the table as input of `nft -f`, which adds it to a kernel that
// does not have it.
func (t Table) Script() string {
	tx := knftables.NewFake(knftables.InetFamily, t.Name).NewTransaction()
	t.add(tx)
	return tx.String()
}

// Lines returns the table as one line for each chain, rule, set and element,
// sorted but for the rules, whose order matters. Counters have no line.
func (t Table) Lines() []string {
	var lines []string
	for _, s := range t.Sets {
		lines = append(lines, fmt.Sprintf("set %s type %s", s.Name, s.Type))
		for _, e := range s.Elements {
			lines = append(lines, fmt.Sprintf("set %s element %s", s.Name, e))
		}
	}
	for _, m := range t.Maps {
		lines = append(lines, fmt.Sprintf("map %s type %s", m.Name, m.Type))
		for k, v := range m.Elements {
			lines = append(lines, fmt.Sprintf("map %s element %s : %s", m.Name, k, v))
		}
	}
	for _, c := range t.Chains {
		if c.Hook != nil {
			lines = append(lines, fmt.Sprintf("chain %s hook %s %s %s", c.Name, c.Hook.Type, c.Hook.Hook, c.Hook.Priority))
		}
		for i, r := range c.Rules {
			lines = append(lines, fmt.Sprintf("chain %s rule %03d %s", c.Name, i, r))
		}
	}
	slices.Sort(lines)
	return lines
}

// add adds everything to a transaction.
func (t Table) add(tx *knftables.Transaction) {
	tx.Add(&knftables.Table{})
	for _, name := range t.Counters {
		tx.Add(&knftables.Counter{Name: name})
	}
	for _, s := range t.Sets {
		set := &knftables.Set{Name: s.Name, Type: s.Type}
		if s.Interval {
			set.Flags = []knftables.SetFlag{knftables.IntervalFlag}
		}
		tx.Add(set)
	}
	for _, m := range t.Maps {
		tx.Add(&knftables.Map{Name: m.Name, Type: m.Type})
	}
	for _, c := range t.Chains {
		tx.Add(c.object())
	}
	t.addContent(tx)
}

// addContent adds rules and elements, once everything they name exists.
func (t Table) addContent(tx *knftables.Transaction) {
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			tx.Add(&knftables.Rule{Chain: c.Name, Rule: r})
		}
	}
	for _, s := range t.Sets {
		for _, e := range s.Elements {
			tx.Add(&knftables.Element{Set: s.Name, Key: strings.Split(e, " . ")})
		}
	}
	for _, m := range t.Maps {
		for _, k := range slices.Sorted(maps.Keys(m.Elements)) {
			tx.Add(&knftables.Element{Map: m.Name, Key: strings.Split(k, " . "), Value: []string{m.Elements[k]}})
		}
	}
}

func (c Chain) object() *knftables.Chain {
	chain := &knftables.Chain{Name: c.Name}
	if h := c.Hook; h != nil {
		chain.Type = knftables.PtrTo(knftables.BaseChainType(h.Type))
		chain.Hook = knftables.PtrTo(knftables.BaseChainHook(h.Hook))
		chain.Priority = knftables.PtrTo(knftables.BaseChainPriority(h.Priority))
	}
	return chain
}
