package server

import "testing"

func TestReady(t *testing.T) {
	for _, m := range []*member{w.host, w.a, w.b} {
		if err := m.server.Ready(); err != nil {
			t.Error(m.name, err)
		}
	}
}
