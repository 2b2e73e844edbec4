// Command sync measures what lies between a tenant's pod and its host pod.
//
//	a child: a host's control plane with its scheduler (upstream's processes, or ours),
//	  and nodes that are simulated (a host pod that is bound runs once its token,
//	  Secrets and ConfigMaps were fetched)
//	this process, as a cell: tenants' control planes with their syncers, on the host with
//	  the rights, quotas and admission policies that the manager gives them
//	  -> idle:    one pod after the other, from its creation to its being seen running
//	  -> direct:  pods as tenants write them, written to the host by as many clients
//	  -> synced:  the same pods, by all tenants at once
//	  -> restart: all syncers stopped and started again over what is there
//	  -> greedy:  one tenant with many pods beside one with a single pod at a time, which
//	     is alone before and after, as it is compared with itself
//	  -> `ratio NAME VALUE`, `value NAME VALUE UNIT`, and which bars were held
//
// Direct and synced are in one run, with the same scheduler and kubelets; clients speak
// TLS to whatever API they use. Everything shares this machine's processors, the
// tenants' control planes too, which a host by itself does not have: the values
// cpu/PHASE/host and cpu/PHASE/beside say what either process used for each pod, and
// those below the second how it divides among tenants' API servers, syncers and
// clients. The ratios are of wall-clock times and leave nothing out. processors/PHASE/idle
// and processors/PHASE/stolen say how much of the processors' time nobody wanted, and how
// much other virtual machines got while this one wanted it. The processes interrupt each
// other less if all are of the scheduling policy "batch" (`chrt --batch 0`, as make
// bench-sync has it); which one they inherit is printed.
//
// It writes to a temporary folder, and talks to loopback only.
package main
