# Every target has a line of help. `make check` is what CI runs first.
GO       ?= go
GOARCH   ?= $(shell $(GO) env GOARCH)
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT   ?= $(shell git rev-parse HEAD 2>/dev/null)$(shell test -z "$$(git status --porcelain 2>/dev/null)" || echo -dirty)
PACKAGE   = github.com/caissonrun/caisson/internal/version
LDFLAGS   = -s -w -X $(PACKAGE).version=$(VERSION) -X $(PACKAGE).commit=$(COMMIT)
KEEPER    = keeper/embedded/caisson-keeper-linux-$(GOARCH)
GUEST     = internal/guest/embed/embedded/caisson-guest-linux-$(GOARCH)
INSIDE    = internal/selftest/embedded/caisson-inside-linux-$(GOARCH)
export CGO_ENABLED = 0

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: setup
setup: ## install what tests need from Debian's packages (as root)
	sh scripts/setup

.PHONY: build
build: keeper guest inside ## build bin/caisson, static, with the small programs inside, and what examples run
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/caisson ./cmd/caisson
	$(GO) build -trimpath -ldflags '-s -w' -o examples/components/registry/aggregate/aggregate ./examples/components/registry/aggregate
	GOOS=wasip1 GOARCH=wasm $(GO) build -trimpath -o examples/wasm/wordcount.wasm ./examples/wasm
	$(GO) build -trimpath -ldflags '-s -w' -o bin/caisson-sign ./examples/script
	$(GO) build -trimpath -ldflags '-s -w' -o bin/caisson-example-git ./examples/proxy
	env -u GOOS -u GOARCH $(GO) run ./examples/script --make-key examples/script/sign.key
	env -u GOOS -u GOARCH $(GO) run ./examples/proxy -make examples/proxy/server
	cp -f examples/components/population/storage/in/c-example/*.csv examples/components/registry/datasets/

.PHONY: keeper
keeper: ## build the small keeper that is embedded in the binary
	GOOS=linux $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(KEEPER) ./cmd/caisson-keeper

.PHONY: guest
guest: ## build the agent of virtual machines that is embedded in the binary
	GOOS=linux $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(GUEST) ./cmd/caisson-guest
	gzip -9nf $(GUEST)

.PHONY: inside
inside: ## build the small program that selftest runs in sandboxes
	GOOS=linux $(GO) build -trimpath -ldflags '-s -w' -o $(INSIDE) ./engine/enginetest/inside
	gzip -9nf $(INSIDE)

.PHONY: check
check: fmt-check ## formatting, vet, staticcheck, and that other systems compile
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	GOOS=darwin $(GO) build ./...
	GOOS=freebsd $(GO) build ./...
	GOOS=linux GOARCH=arm64 $(GO) build ./...
	$(GO) mod verify

.PHONY: quick
quick: keeper inside ## the tests that need neither root nor services
	$(GO) test ./...

.PHONY: test
test: setup build check ## install what tests need, then check and test everything
	sh scripts/test

.PHONY: race
race: ## the tests of what runs in parallel, under the race detector
	CGO_ENABLED=1 $(GO) test -race ./executor/... ./engine/mem/... ./keeper/... ./stage/... ./mount/... ./internal/guest/...

.PHONY: conformance
conformance: build ## run the conformance suite on every engine and print the table of rules
	sh scripts/conformance

.PHONY: conformance-v2
conformance-v2: build ## run the suites of native and oci in a machine with systemd and cgroup v2
	sh scripts/conformance-v2

.PHONY: selftest
selftest: build ## try attacks on every engine and runtime here, and write the scoreboard
	sh scripts/scoreboard

.PHONY: bench
bench: build ## print medians and ratios beside the budgets, in one run
	sh scripts/services run $(GO) run ./internal/bench $(BENCH)

.PHONY: examples
examples: build ## run the examples and the README's commands
	sh scripts/services run sh -c 'sh scripts/examples && sh scripts/components'

.PHONY: generate
generate: ## write the generated parts of docs/ again
	sh scripts/generate

.PHONY: fmt
fmt: ## format the code
	$(GO) tool gofumpt -w .

.PHONY: fmt-check
fmt-check:
	@out=$$($(GO) tool gofumpt -l .); test -z "$$out" || { echo "not formatted, run make fmt:"; echo "$$out"; exit 1; }

.PHONY: clean
clean: ## remove what make has built
	rm -rf bin examples/wasm/*.wasm examples/script/sign.key examples/proxy/server examples/components/registry/aggregate/aggregate examples/components/registry/datasets/*.csv keeper/embedded/caisson-keeper-* internal/guest/embed/embedded/caisson-guest-* internal/selftest/embedded/caisson-inside-*
