package tail

import (
	"fmt"
	"strings"
	"testing"
)

func TestLastLines(t *testing.T) {
	var l lines
	for i := range 3 * keep {
		fmt.Fprintf(&l, "line %d %s\n", i, strings.Repeat("x", 2*width))
	}
	got := strings.Split(strings.TrimSpace(l.text()), "\n")
	if len(got) != keep || !strings.HasPrefix(got[0], fmt.Sprintf("line %d ", 2*keep)) || !strings.HasPrefix(strings.TrimSpace(got[keep-1]), fmt.Sprintf("line %d ", 3*keep-1)) {
		t.Errorf("%d lines, the first %.20q, the last %.20q", len(got), got[0], got[len(got)-1])
	}
	for _, line := range got {
		if len(line) > width+2 {
			t.Fatalf("a line has %d bytes", len(line))
		}
	}
}
