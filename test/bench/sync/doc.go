// Command sync measures what lies between a tenant's pod and its host pod.
//
//	a host's control plane with its scheduler, nodes that are simulated (a host pod
//	that is bound runs at once), some tenants' control planes with their syncers, all
//	in this process
//	  -> idle:    one pod after the other, from its creation to its being seen running
//	  -> direct:  the same pods written to the host by as many clients
//	  -> synced:  the pods of all tenants at once
//	  -> greedy:  one tenant with many pods beside one with a single pod at a time
//	  -> restart: all syncers stopped and started again over what is there
//	  -> `ratio NAME VALUE`, `value NAME VALUE UNIT`, and which bars were held
//
// Direct and synced are in one run, and the pods that are written directly have the
// spec of one that a syncer made. Everything shares this machine's processors: the
// tenants' control planes too, which a host by itself does not have.
//
// It writes to a temporary folder, and talks to loopback only.
package main
