package server

import "sublet.dev/tenant-apiserver/store"

// File returns the file that the control plane has open, for looking into it and
// for backups; nil when its cluster is kept in an etcd. It is closed by Stop.
func (s *Server) File() *store.Store { return s.rotation.st.file }
