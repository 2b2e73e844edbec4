# Part of the Makefile: what a node needs, built from pinned sources.

.PHONY: deps
deps: ## containerd, runc, gVisor, CNI plugins, kubectl and the node's images in bin/ (root; once)
	@./deploy/deps/deps.sh

.PHONY: peers
peers: ## what tests run beside Sublet, in bin/peers/: a real etcd, kine, helm
	@./deploy/deps/peers.sh

.PHONY: peer-etcd
peer-etcd: # the one that `make test` needs
	@./deploy/deps/peers.sh etcd
