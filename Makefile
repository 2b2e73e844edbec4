# Sublet. `make help` lists what there is.
#
# Everything that a fresh Debian machine with Go and make needs is made or
# installed by these targets (as root); nothing has to be there before.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

K8S_VERSION := v1.37.1
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
K8S_LDFLAGS := -X k8s.io/component-base/version.gitVersion=$(K8S_VERSION) \
	-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37 \
	-X k8s.io/client-go/pkg/version.gitVersion=$(K8S_VERSION)
LDFLAGS     := -s -w $(K8S_LDFLAGS) -X main.version=$(VERSION)
export K8S_VERSION K8S_LDFLAGS

# The same for everything that is compiled, so that nothing is compiled twice.
export CGO_ENABLED := 0
export GOFLAGS     := -trimpath -buildvcs=false

include deploy/deps/deps.mk

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-20s %s\n", $$1, $$2}'

.PHONY: build
build: ## bin/sublet
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/sublet ./cmd/sublet

.PHONY: images
images: ## the container images of examples/ as bin/images/*.tar
	@mkdir -p bin/images
	go build -ldflags '-s -w' -o bin/images/app ./examples/quickstart/app
	go run ./test/images/mkimage -o bin/images/quickstart.tar -ref sublet.dev/quickstart:1 -user 65534:65534 \
		-env PATH=/bin bin/images/app bin/images/app=/bin/tar

.PHONY: demo
demo: build deps images ## the main job, end to end, on real containers (root)
	./examples/quickstart/demo.sh

.PHONY: lint
lint: ## go vet and staticcheck
	go vet ./...
	go tool staticcheck ./...

# How many tests of a package run at a time, of those that say that they may: most
# of what they do is waiting. Packages run one after the other.
SIDE_BY_SIDE := 6

# A test that fails is run once more when all others are through, unless more than a few
# have failed: two cores that are busy with six tests at a time sometimes take longer than a
# limit of upstream's allows. What it said at first is printed all the same, and the run
# ends with the names of such tests: each is a defect to look into.
.PHONY: test
test: build deps peer-etcd images lint ## every test, on real containers (root)
	@rm -f bin/failed-at-first.txt
	go tool gotestsum --format standard-quiet --packages ./... --rerun-fails=1 --rerun-fails-max-failures=5 \
		--rerun-fails-run-root-test --rerun-fails-report=bin/failed-at-first.txt \
		-- -timeout 45m -p 1 -parallel $(SIDE_BY_SIDE) -ldflags '-s -w $(K8S_LDFLAGS)'
	@[ ! -s bin/failed-at-first.txt ] || { echo 'failed at first, for what is said above:'; cat bin/failed-at-first.txt; }

.PHONY: storage-conformance
storage-conformance: ## upstream's own storage tests on our store (a part of test)
	go test -v -count=1 -timeout 30m ./test/conformance/storage

.PHONY: conformance
conformance: build deps peers images ## upstream's conformance suite as a tenant (FOCUS=, SKIP=, RUNTIME=gvisor|runc-userns, PROCS=, LIMIT=10m, REST=1; hours)
	./test/conformance/upstream/build.sh
	SUBLET_CONFORMANCE_RUNTIME='$(or $(RUNTIME),gvisor)' SUBLET_CONFORMANCE_FOCUS='$(FOCUS)' SUBLET_CONFORMANCE_SKIP='$(SKIP)' \
		SUBLET_CONFORMANCE_PROCS='$(PROCS)' SUBLET_CONFORMANCE_LIMIT='$(LIMIT)' SUBLET_CONFORMANCE_REST='$(REST)' go test -v -count=1 -timeout 13h ./test/conformance/upstream

.PHONY: crash
crash: ## stores killed 1000 times under load, and their power cut at every step (10 min)
	SUBLET_CRASH_CYCLES=1000 go test -v -count=1 -timeout 60m -run 'TestKill|TestFaults|TestPowerCut' ./tenant-apiserver/store

.PHONY: upstream
upstream: peers ## upstream's control plane in bin/peers: what tests and benchmarks put ours on, or beside (minutes at first)
	go build -ldflags '-s -w $(K8S_LDFLAGS)' -o bin/peers/ k8s.io/kubernetes/cmd/kube-apiserver \
		k8s.io/kubernetes/cmd/kube-controller-manager k8s.io/kubernetes/cmd/kube-scheduler

.PHONY: syncer-upstream
syncer-upstream: upstream ## the syncer's tests on a host of upstream's own processes (2 min)
	SUBLET_SYNCER_HOST=upstream go test -v -count=1 -timeout 30m -ldflags '-s -w $(K8S_LDFLAGS)' ./test/syncer

.PHONY: stories
stories: build deps peers images ## what tenants do with helm, an operator and kubectl (root; some minutes)
	SUBLET_STORIES=1 go test -v -count=1 -timeout 30m ./test/stories

.PHONY: scale
scale: build deps images ## 1000 tenants made, asleep, woken in random order and deleted (root; SIZE=20 for a try; half an hour)
	SUBLET_RENEWAL_CRONJOB=1 go test -v -count=1 -timeout 30m ./test/renewal
	SUBLET_SCALE_TENANTS=$(or $(SIZE),1000) go test -v -count=1 -timeout 3h ./test/scale

.PHONY: bench
bench: build deps images ## the figures of docs/benchmarks.md
	go test -run '^$$' -bench . -benchtime 3x -timeout 45m ./test/bench/...

.PHONY: bench-store
bench-store: peers ## our store beside etcd and kine, on one disk (BENCH="-only create" for a part; 15 min)
	@mkdir -p bin
	go build -ldflags '-s -w' -o bin/bench-store ./test/bench/store
	./bin/bench-store $(BENCH)

.PHONY: bench-density
bench-density: upstream ## our control planes beside upstream's processes (BENCH="-tenants 1,10" for less; 25 min)
	@mkdir -p bin
	go build -ldflags '-s -w $(K8S_LDFLAGS)' -o bin/bench-density ./test/bench/density
	./bin/bench-density $(BENCH)

# BENCH_AS is what bench-sync is run by. What it runs would be on machines of their own; of the policy
# "batch" (sched(7), kernel/sched/fair.c), processes that wake do not interrupt each other.
BENCH_AS ?= chrt --batch 0

.PHONY: bench-sync
bench-sync: upstream ## tenants' pods beside pods written to a host of upstream's (BENCH="-tenants 10 -greedy 1000" for less, "-host ours"; BENCH_AS= for usual scheduling; 20 min)
	@mkdir -p bin
	go build -ldflags '-s -w $(K8S_LDFLAGS)' -o bin/bench-sync ./test/bench/sync
	$(BENCH_AS) ./bin/bench-sync $(BENCH)

.PHONY: generate
generate: ## deep copies and manifests of api/
	go generate ./api/...

.PHONY: clean
clean: ## what was built
	rm -rf bin
