# Stampede. `make help` is written from the `## ` comments in this file.

.DEFAULT_GOAL := help

# Arguments for what `make run`, `make bench`, `make bench-compare` and `make test-servers` start, e.g. make run ARGS="--addr 127.0.0.1:9000".
ARGS ?=
# Packages and further go test flags for `make test`, e.g. make test PKG=./engine TESTFLAGS="-run Order -v".
PKG ?= ./...
TESTFLAGS ?=
# Packages that start the program itself, time and again: built for the race detector it would take three times the processor
# for what the others let that look at in their own process. `make test PKG=./cmd/stampede` and `make test-long` have it so.
PROGRAMS = stampede/cmd/stampede stampede/bench
# Tests in which one thing is done after the other. The race detector would find nothing in them, and takes three to five times
# as long: they are a third of all that it costs.
SERIAL = ^(TestShop_AnswersAsItsModelDoes|TestOrder_TakesOnlyLegalSteps|TestCall_(OfN|WhateverAKey|WithMoreKeys)|TestTop_Of|TestReplay_Of|TestAPI_(BadInput|WhoMayDoWhat|OrdersThatRedisLetGo)|TestOpenAPI|TestBatch_AsLarge|TestReports_(Cost|EqualAModel|CSV)|TestAudit_(Finds|Memory|OfLayouts)|TestLayout|TestRestore_(CutShort|Equals|OfOdd|SharesAnd)|TestRebuild_OfEmptied|TestOrders_Show|TestCache|TestBuckets_ManyKeys)
OF_SERIAL = ./persist ./engine ./engine/rest ./engine/rest/token ./engine/rest/limit
# All others. Those that take longest come first, so that none of them is left to run alone at the end.
RACED = ./persist ./engine ./engine/rest $(filter-out $(PROGRAMS),$(shell go list ./...))
# Where a shop that a test starts runs, unless the test says it itself: on as many partitions of one Redis, or on a
# cluster of three masters with as many as such a one has. See cmd/shop/shoptest/layout.go. Tests of persist look at
# partition 0 alone, or say how many there are.
LAYOUTS = 4 cluster
LAID = ./engine/rest ./engine ./cmd/shop
# How often `make bench-micro` runs each benchmark: benchstat wants several.
COUNT ?= 6
# How long `make fuzz` looks for bad input to each parser.
FUZZTIME ?= 30s

# Stamped into the binary. A tree that is not itself a git checkout (a tarball, also one unpacked
# inside some other repository) or has no tag yet builds as "dev".
GIT := [ -z "$$(git rev-parse --show-prefix 2>&1)" ] && git
VERSION ?= $(shell $(GIT) describe --tags --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell $(GIT) describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || echo unknown)
LDFLAGS = -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# The commit comes from above; Go's own stamping fails the build where git distrusts the folder's owner.
export GOFLAGS := $(strip $(filter-out -buildvcs=%,$(shell go env GOFLAGS 2>/dev/null)) -buildvcs=false)

# Where `go install` puts tools, so that they are found without a word about PATH.
TOOLBIN = $(shell .make/tools --bindir)

# Packages start their own Redis and Postgres and often wait for them: three packages at a time keep two processors busy. Programs
# wait more, so four tests of a package.
# `make lint` is what vets.
GOTEST = go test -vet=off -count=1 -p 3
# Under the race detector each package would sleep for a second before it exits.
RACE = CGO_ENABLED=1 GORACE=atexit_sleep_ms=0 $(GOTEST) -race
# Benchmarks of the hot path. A rebuild, a restore and a shop in several layouts take longer, and have figures of their own.
MICRO = -run '^$$' -bench . -skip 'Rebuild|Restore|Layout' ./engine ./engine/rest ./engine/rest/token ./persist

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## Install redis-server >= 7 and PostgreSQL >= 14 with apt, if missing
	@.make/setup redis postgres

.PHONY: setup-test
setup-test: ## The same, and the C compiler that the race detector needs
	@.make/setup redis postgres compiler

.PHONY: build
build: ## Build bin/stampede
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/stampede ./cmd/stampede

.PHONY: run
run: setup build ## Set up, build, and start everything with a demo catalogue (ARGS="..." is passed on)
	@exec bin/stampede up --demo $(ARGS)

.PHONY: test
test: setup-test ## Run every test against real Redis and Postgres, those of concurrency under the race detector
ifeq ($(origin PKG)$(TESTFLAGS),file)
	$(RACE) -timeout 20m -skip '$(SERIAL)' $(RACED)
	$(GOTEST) -parallel 4 -timeout 20m -run '$(SERIAL)' $(OF_SERIAL)
	$(GOTEST) -parallel 4 -timeout 20m $(PROGRAMS)
# Once through each microbenchmark, so that none of them rots.
	STAMPEDE_BENCH_ORDERS=10 $(GOTEST) -benchtime 1x $(MICRO)
else
	$(RACE) -timeout 20m $(TESTFLAGS) $(PKG)
endif

.PHONY: test-long
test-long: setup-test ## The same with the long tests at their full counts, and all under the race detector (hours)
	STAMPEDE_TEST_LONG=1 $(RACE) -timeout 12h $(TESTFLAGS) $(PKG)
	$(foreach layout,$(LAYOUTS),STAMPEDE_TEST_LONG=1 STAMPEDE_TEST_LAYOUT=$(layout) $(RACE) -timeout 12h $(TESTFLAGS) $(LAID) &&) true

.PHONY: test-layouts
test-layouts: setup-test ## The tests of a shop once more with 4 partitions on one Redis, and with 12 on a cluster of three
	$(foreach layout,$(LAYOUTS),STAMPEDE_TEST_LAYOUT=$(layout) $(RACE) -timeout 30m $(TESTFLAGS) $(LAID) &&) true

.PHONY: test-servers
test-servers: setup ## The tests of kills, clusters, restores and rights on other servers, which it fetches (ARGS="valkey-9 postgres-18", ARGS=--all)
	@.make/test-servers $(ARGS)

.PHONY: fuzz
fuzz: setup-test ## Fuzz each parser of requests for FUZZTIME
	@.make/fuzz $(FUZZTIME)

.PHONY: bench
bench: setup build ## Load a private stampede, or your own deployment (ARGS="--rate 5000 --for 30s", ARGS=--help)
	go run ./bench $(ARGS)

.PHONY: bench-smoke
bench-smoke: setup build ## A few seconds of each benchmark, to see that they run
	go run ./bench smoke

.PHONY: bench-compare
bench-compare: setup build ## Every number that is promised, beside what it is held against, in about eight minutes (ARGS="--quick")
	go run ./bench compare $(ARGS)

.PHONY: bench-memory
bench-memory: setup build ## Bytes of Redis memory an order and a user, in half a minute
	go run ./bench memory

.PHONY: bench-micro
bench-micro: setup ## Microbenchmarks of the hot path, COUNT times each, for benchstat
	@go test -count $(COUNT) $(MICRO)

.PHONY: profile
profile: setup build ## CPU and allocation profiles of a flash sale, left in profiles/
	go run ./bench profile

.PHONY: lint
lint: tools ## Check format, go vet, golangci-lint (also who may import whom), the build for macOS and arm64, and the Lua scripts
	@.make/lint

.PHONY: vuln
vuln: ## Ask the Go vulnerability database about everything that the code calls (needs the network)
	@.make/tools govulncheck
	$(TOOLBIN)/govulncheck ./...

.PHONY: fmt
fmt: ## Format the Go code
	@.make/tools gofumpt
	$(TOOLBIN)/gofumpt -w .

.PHONY: tools
tools: ## Install the linters at their pinned versions, if missing
	@.make/tools golangci-lint gofumpt luacheck

.PHONY: clean
clean: ## Remove what was built (never the data in .stampede)
	rm -rf bin profiles
	rm -f coverage.* *.out *.prof *.pprof *.test
