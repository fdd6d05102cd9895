# Run `make help` for the targets. Variables: PKG=./push/... narrows test, race,
# bench, cover and fuzz to some packages; FUZZTIME and BENCH are explained below.

PKG      ?= ./...
BENCH    ?= .
FUZZTIME ?= 60s
FAULTS   ?= 5m
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# One set of flags everywhere: another set compiles every dependency again.
# nomsgpack leaves out a codec of gin that nothing here uses (6 MB a binary).
export GOFLAGS := -trimpath -tags=nomsgpack -buildvcs=false
# Static binaries; the race detector alone needs a C compiler.
export CGO_ENABLED := 0
# Where tests leave pictures of pages and mails.
export HERALD_ARTEFACTS ?= $(CURDIR)/artefacts

GOLANGCI_VERSION := v2.15.0
GOLANGCI := .tools/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint
GOVULNCHECK_VERSION := v1.3.0
GOVULNCHECK := .tools/govulncheck-$(GOVULNCHECK_VERSION)/govulncheck

.DEFAULT_GOAL := help
.PHONY: help build run test check fmt fmt-check docs docs-check lint shell-lint tidy-check race faults interop cover bench bench-hostile soak fuzz repro sbom vuln clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

build: ## build bin/pushgw and bin/identity, static
	@scripts/build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/...

run: build ## start both services in development mode; Ctrl-C stops them
	@scripts/run

test: ## run all tests, with a real Redis and PostgreSQL
	scripts/services run -- go test -timeout 15m $(PKG)

check: fmt-check docs-check lint shell-lint tidy-check race ## everything a change must pass: format, lint, race tests, go.mod

fmt: $(GOLANGCI) ## format the code and sort its imports
	$(GOLANGCI) fmt

fmt-check:
	@unformatted=$$(gofmt -l .) && \
	if [ -n "$$unformatted" ]; then echo "run make fmt; not formatted:"; echo "$$unformatted"; exit 1; fi

docs: ## write the tables of the pages from the code, and artefacts/conformance.md from the comments beside tests
	@mkdir -p artefacts
	scripts/docs conformance >artefacts/conformance.md
	go test -p 1 -count=1 -run '^TestPage' ./cmd/pushgw ./cmd/identity -update

docs-check: # rows of the conformance table are well formed, and tests that a page names exist
	scripts/docs

lint: $(GOLANGCI) ## run golangci-lint, which has all of go vet
	$(GOLANGCI) run

$(GOLANGCI):
	GOBIN=$(abspath $(@D)) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

shell-lint:
	@if command -v shellcheck >/dev/null; then shellcheck $$(find scripts -maxdepth 1 -type f) .ci/run; \
	else echo "shellcheck is not installed: the scripts go unchecked"; fi

tidy-check:
	go mod tidy -diff

race: ## run all tests under the race detector, in random order
	@# make lint has vetted everything; here each package would be compiled once more for it.
	CGO_ENABLED=1 scripts/services run -- go test -race -vet=off -shuffle=on -timeout 30m $(PKG)

faults: ## break everything around pushgw for FAULTS (5m) and count what is lost or doubled (SEED=n repeats a run)
	HERALD_FAULTS=$(FAULTS) HERALD_FAULTS_SEED=$(SEED) \
		scripts/services run -- go test -count=1 -v -run '^TestFaults$$' -timeout 0 ./cmd/pushgw

interop: ## drive identity with matrix-js-sdk (npm fetches it; not run by CI)
	cd scripts/interop && npm install --no-package-lock --no-audit --no-fund
	HERALD_INTEROP=$(CURDIR)/scripts/interop go test -count=1 -v -run '^TestInterop$$' ./cmd/identity

cover: ## write the tests' coverage to artefacts/cover.html
	mkdir -p artefacts
	scripts/services run -- go test -timeout 15m -coverprofile=artefacts/cover.out -coverpkg=./... $(PKG)
	go tool cover -html=artefacts/cover.out -o artefacts/cover.html
	go tool cover -func=artefacts/cover.out | tail -n 1

bench: ## run the benchmarks (BENCH=regexp)
	scripts/services run -- go test -run '^$$' -bench '$(BENCH)' -benchmem $(PKG)

bench-hostile: ## compare answers beside attacks and 10,000 slow clients with calm ones
	go test -run '^$$' -bench 'HostileAttacks$$' -benchtime 1x -timeout 30m ./cmd/pushgw ./cmd/identity

soak: ## have both services do their work ten million times, and look at their memory
	HERALD_SOAK=1 go test -run '^$$' -bench 'Soak$$' -benchtime 1x -timeout 3h ./cmd/...

fuzz: ## fuzz each target for FUZZTIME (60s)
	scripts/fuzz $(FUZZTIME) $(PKG)

repro: ## build both programs twice, in different folders, and compare them
	scripts/repro $(VERSION)

sbom: build ## write bin/*.cdx.json: what each program is made of
	scripts/sbom bin/pushgw $(VERSION) >bin/pushgw.cdx.json
	scripts/sbom bin/identity $(VERSION) >bin/identity.cdx.json

vuln: $(GOVULNCHECK) ## look for known vulnerabilities (needs vuln.go.dev; not run by CI)
	$(GOVULNCHECK) ./...

$(GOVULNCHECK):
	GOBIN=$(abspath $(@D)) go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)

clean: ## remove what the other targets wrote
	rm -rf bin .tools artefacts
