package netpol

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"time"

	"sublet.dev/host-agent/nft"
)

// repairEvery is how often the kernel's table is compared with what it should be.
// As long as nobody has changed any rule on the node this asks the kernel for one
// number.
const repairEvery = 3 * time.Second

// maxShown is how many differing lines are logged of each side.
const maxShown = 10

// keep makes the kernel's table true whenever the host API has told something new
// and at every tick, until ctx ends.
func (e *Enforcer) keep(ctx context.Context, ticks <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.changed:
		case <-ticks:
		}
		if err := e.Sync(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrNotReady) {
			e.Logger.Error("the fence is not up to date", "err", err)
		}
	}
}

// inspect notes, and says, when the kernel's table is not what was put there or
// can't be read: Sync then replaces it, or fails. The caller must hold mu.
func (e *Enforcer) inspect(ctx context.Context) {
	if e.applied.Name == "" {
		return // it is in doubt already
	}
	// Asked before the table is read: a later change makes another generation.
	now, err := generation()
	if err == nil && now == e.generation {
		return
	}
	lines, readErr := readLines(ctx, e.kernel)
	if err = errors.Join(err, readErr); err == nil && slices.Equal(lines, e.printed) {
		e.generation = now
		return
	}
	if ctx.Err() != nil {
		return // the agent ends: nothing was learned
	}
	lost, foreign := differing(e.printed, lines)
	e.Logger.Warn("the fence in the kernel is not what was put there: putting it back", "err", err, "missing", lost, "foreign", foreign)
	e.applied = nft.Table{}
	// Connections that were made meanwhile would go on as established.
	for a := range e.fenced {
		e.fenced[a] = "" // nobody's: Sync forgets its connections
	}
}

// position is the number that a rule has within its chain.
var position = regexp.MustCompile(`^(chain \S+ rule) \d+ `)

// differing returns the first lines that want has and have has not, and those that
// have has and want has not. Rules are told without their numbers, which a change
// of one moves in all that follow, unless only the numbers differ.
func differing(want, have []string) (lost, foreign []string) {
	plain := func(lines []string) []string {
		out := make([]string, len(lines))
		for i, line := range lines {
			out[i] = position.ReplaceAllString(line, "$1 ")
		}
		return out
	}
	lost, foreign = missing(plain(want), plain(have)), missing(plain(have), plain(want))
	if len(lost)+len(foreign) > 0 {
		return lost, foreign
	}
	return missing(want, have), missing(have, want)
}

// missing returns the first few lines that want has and have has not.
func missing(want, have []string) []string {
	has := make(map[string]bool, len(have))
	for _, line := range have {
		has[line] = true
	}
	var out []string
	for _, line := range want {
		if !has[line] && len(out) < maxShown {
			out = append(out, line)
		}
	}
	return out
}
