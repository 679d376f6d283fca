# make check   formatting, vet, linters, tidy go.mod files, workflows, each module built
#              alone and for other systems, and what sealing costs beside peers
# make test    coverage floors, the FIPS run, and every test of every module with -race
# make soak    the same tests at full length, fuzzing, mutants, and the demo on arm64; hours
# make fuzz    each fuzz target for FUZZTIME (30s)
# make mutate  runs the tests against MUTANTS (900) small changes of what protects a message,
#              drawn at random (SEED=1 repeats a draw), and says which no test notices
# make example the programs of examples/ at work, attacked, and measured
# make bench   every benchmark COUNT times (6), summed up by benchstat
# make bench-report   writes docs/performance.md: what this library costs beside its peers
# make bench-check    holds some of those ratios against recorded bounds; make check has
#              those of work in memory
# make vuln    govulncheck, module by module; needs the vulnerability database
# make licenses       the licences of what the command is made of
#
# make release-check  makes a release of HEAD in a scratch folder and installs it
# make release        VERSION=v0.1.0: says what the release would be; with TAG=1 makes
#                     its commit and tags here, and pushes nothing
# make archives       VERSION=v0.1.0, in a work tree of that tag: the files to download, in dist/
#
# The modules are those that go.work lists. Tools are installed once per version
# of Go into .tools/, pinned by version and verified by the checksum database.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS   += --no-builtin-rules --no-print-directory

GO       ?= go
MODULES  := $(shell sed -nE 's/^(use)?[[:space:]]+(\.[^[:space:]]*)[[:space:]]*$$/\2/p' go.work)
ifeq ($(strip $(MODULES)),)
$(error go.work lists no module: run make at the root of the repository)
endif

# RACE= switches the race detector off where no C compiler is installed.
RACE      ?= -race

# SQLite is a C library that was translated to Go. It has locks of its own, and the
# detector slows it by ten. The package that calls it stays watched.
UNWATCHED := modernc.org/sqlite/lib modernc.org/libc/...

# Packages tested at a time: many of them mostly wait.
ABREAST   := $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))

EXAMPLE   ?=
TESTFLAGS ?=
FUZZTIME  ?= 30s
MUTANTS   ?= 900
SEED      ?=
BENCH     ?= .
COUNT     ?= 6

# The packages whose statements must be tested, and the floor in percent.
COVERED := ./envelope ./keys ./replay ./internal/intake ./internal/jsonscan ./internal/sealing
FLOOR   := 95

# Tools, each in a file named after its version.
TOOLS       := $(CURDIR)/.tools/$(shell $(GO) env GOVERSION)
STATICCHECK := $(TOOLS)/staticcheck-v0.8.2
GOLANGCI    := $(TOOLS)/golangci-lint-v2.15.0
GOVULNCHECK := $(TOOLS)/govulncheck-v1.9.0
BENCHSTAT   := $(TOOLS)/benchstat-v0.0.0-20260908200009-22c9c6c9d4da
ACTIONLINT  := $(TOOLS)/actionlint-v1.7.12
CYCLONEDX   := $(TOOLS)/cyclonedx-gomod-v1.10.0

# Systems that every package must compile for, beside the one that this runs on.
SYSTEMS := windows/amd64 darwin/arm64 linux/arm64

.PHONY: all check fmt vet staticcheck lint actionlint tidy build cross ratios test peers race cover fips
.PHONY: soak fuzz mutate arm64 example bench bench-report bench-check vuln licenses release release-check archives tools clean
all: check test

check: fmt vet staticcheck lint actionlint tidy build cross ratios

fmt:
	@echo "# gofmt"
	files=$$(find . \( -name node_modules -o -name '.?*' \) -prune -o -name '*.go' -print0 | xargs -0 -r gofmt -l)
	if [[ -n $$files ]]; then
		echo "not formatted; run gofmt -w on:" >&2
		echo "$$files" >&2
		exit 1
	fi

vet:
	@echo "# go vet work"
	$(GO) vet work

staticcheck: $(STATICCHECK)
	@echo "# staticcheck work"
	$(STATICCHECK) work

# golangci-lint takes folders, not the pattern "work".
lint: $(GOLANGCI)
	@echo "# golangci-lint"
	$(GOLANGCI) run $(MODULES:%=%/...)

# Scripts in workflows are left to review: shellcheck is no Go program.
actionlint: $(ACTIONLINT)
	@echo "# actionlint"
	$(ACTIONLINT) -shellcheck= -pyflakes= .github/workflows/*.yml

tidy:
	@for module in $(MODULES); do
		echo "# go mod tidy -diff ($$module)"
		(cd "$$module" && GOWORK=off $(GO) mod tidy -diff) ||
			{ echo "$$module/go.mod is not tidy: run GOWORK=off go mod tidy there" >&2; exit 1; }
	done

build:
	@for module in $(MODULES); do
		echo "# go build ./... ($$module, alone)"
		(cd "$$module" && GOWORK=off $(GO) build ./...)
	done

# go list -export compiles and does not link, which cannot fail without C.
cross:
	@for system in $(SYSTEMS); do
		echo "# compiled for $$system"
		GOOS=$${system%/*} GOARCH=$${system#*/} CGO_ENABLED=0 $(GO) list -export -trimpath work >/dev/null
	done

# The tests with the race detector come last, so that their count closes the run.
test: fips race

# What tests of some modules talk to: see .ci/peers.
peers:
	@.ci/peers

# The race detector sleeps for a second at the end of each process; ten
# milliseconds suffice. make check has run vet.
race: peers
	@echo "# go test $(RACE) work"
	GORACE=atexit_sleep_ms=10 QRT_REQUIRE_PEERS=1 $(GO) test $(RACE) $(if $(RACE),$(UNWATCHED:%=-gcflags=%=-race=false)) \
		-p $(ABREAST) -vet=off $(TESTFLAGS) -json work | $(GO) run ./internal/testsum

# Collecting garbage drops the generators, and a new one cannot seed itself where a test
# has stopped time.
cover fips: export GODEBUG = fips140=only
cover: export GOGC = off
cover:
	@echo "# coverage with GODEBUG=$$GODEBUG, at least $(FLOOR) %"
	$(GO) test -cover -vet=off $(TESTFLAGS) $(COVERED) | awk -v floor=$(FLOOR) -v want=$(words $(COVERED)) '
		{ print }
		match($$0, /coverage: [0-9.]+%/) {
			got++
			if (substr($$0, RSTART + 10, RLENGTH - 11) + 0 < floor) bad = bad " " $$2
		}
		END {
			if (got != want) { print "coverage of " got + 0 " packages found, want " want; exit 1 }
			if (bad) { print "coverage is below " floor " %:" bad; exit 1 }
		}'

fips: cover
	@echo "# GODEBUG=$$GODEBUG"
	GOGC=off $(GO) test -vet=off $(TESTFLAGS) -count=1 . ./internal/drbg
	$(GO) test -vet=off $(TESTFLAGS) -count=1 -run='^(TestDrainUnderLoad|TestKill)$$' ./sqlite/sqlitequeue

# Tests read QRT_SOAK: with 1 they run all of what they can prove, and otherwise
# about one part in a hundred. The longest packages take more than an hour with
# the race detector.
soak: export QRT_SOAK = 1
soak: TESTFLAGS += -timeout=6h
soak: fips fuzz mutate arm64 release-check bench-check race

# The command built for arm64, emulated.
arm64: peers
	@echo "# qrt demo on arm64"
	mkdir -p .tools
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) build -trimpath -o .tools/qrt-arm64 ./cmd/qrt
	qemu-aarch64-static .tools/qrt-arm64 demo

fuzz:
	@found=0
	while IFS=: read -r file target; do
		target=$${target#func }
		found=$$((found + 1))
		echo "# $$target ($$(dirname "$$file")) for $(FUZZTIME)"
		(cd "$$(dirname "$$file")" && $(GO) test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) .)
	done < <(find . \( -name node_modules -o -name testdata -o -name '.?*' \) -prune -o -name '*_test.go' -print0 |
		xargs -0 -r grep -HoE '^func Fuzz[A-Za-z0-9_]*' | sort)
	if ((found == 0)); then echo "no fuzz target found" >&2; exit 1; fi
	echo "$$found fuzz targets ran"

mutate:
	@mkdir -p .tools
	$(GO) run ./tools/mutate -n $(MUTANTS) $(if $(SEED),-seed $(SEED)) -out .tools/mutants.txt

# EXAMPLE=--json prints the report for a program, --logs shows the processes' logs.
example:
	@$(GO) run ./examples/runner $(EXAMPLE)

bench: $(BENCHSTAT)
	@mkdir -p .tools
	$(GO) test -run='^$$' -bench='$(BENCH)' -benchmem -count=$(COUNT) work | tee .tools/bench.txt
	$(BENCHSTAT) .tools/bench.txt

# Some minutes; the machine should do nothing else meanwhile.
bench-report:
	@echo "# docs/performance.md"
	cd tests/bench && $(GO) run . -report ../../docs/performance.md

# The bounds that hold on a busy machine, too: the quickest of many short turns counts.
ratios:
	@echo "# ratios beside peers, in memory"
	cd tests/bench && $(GO) run . -check -only 'envelope|memory'

# All bounds. Those of the disk are measured again on a machine that does other work at the
# same time, which takes longer than a check may.
bench-check:
	@echo "# ratios beside peers"
	cd tests/bench && $(GO) run . -check

vuln: $(GOVULNCHECK)
	@for module in $(MODULES); do
		echo "# govulncheck ($$module)"
		(cd "$$module" && GOWORK=off $(GOVULNCHECK) ./...)
	done

# A licence that is not in the list of tools/licenses fails. The root module has no
# dependency whose licence could be looked at. What the tool says on the way is about
# modules of this repository, which have no version.
licenses: $(CYCLONEDX)
	@mkdir -p .tools
	for module in $(filter-out .,$(MODULES)); do
		echo "# licences ($$module)"
		GOWORK=off $(CYCLONEDX) mod -test -licenses -assert-licenses -json -output .tools/licenses.json "$$module" 2>/dev/null
		$(GO) run ./tools/licenses .tools/licenses.json
	done

# TAG=1 makes the tags; without it nothing changes.
release:
	@: $${VERSION:?write make release VERSION=v0.1.0}
	$(GO) run ./tools/release $(if $(TAG),tag,plan) "$$VERSION"

release-check: $(CYCLONEDX)
	@CYCLONEDX_GOMOD=$(CYCLONEDX) $(GO) run ./tools/release check "$${VERSION:-v0.1.0}"

archives: $(CYCLONEDX)
	@: $${VERSION:?write make archives VERSION=v0.1.0}
	CYCLONEDX_GOMOD=$(CYCLONEDX) $(GO) run ./tools/release archives "$$VERSION" dist

tools: $(STATICCHECK) $(GOLANGCI) $(GOVULNCHECK) $(BENCHSTAT) $(ACTIONLINT) $(CYCLONEDX)

$(STATICCHECK): PACKAGE = honnef.co/go/tools/cmd/staticcheck
$(GOLANGCI):    PACKAGE = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(GOVULNCHECK): PACKAGE = golang.org/x/vuln/cmd/govulncheck
$(BENCHSTAT):   PACKAGE = golang.org/x/perf/cmd/benchstat
$(ACTIONLINT):  PACKAGE = github.com/rhysd/actionlint/cmd/actionlint
$(CYCLONEDX):   PACKAGE = github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

# The version is what follows the command's name in the file's name.
$(STATICCHECK) $(GOLANGCI) $(GOVULNCHECK) $(BENCHSTAT) $(ACTIONLINT) $(CYCLONEDX):
	@name=$(notdir $(PACKAGE))
	version=$(patsubst $(notdir $(PACKAGE))-%,%,$(notdir $@))
	echo "# go install $(PACKAGE)@$$version"
	mkdir -p $(TOOLS)/new
	GOWORK=off GOFLAGS= GOBIN=$(TOOLS)/new $(GO) install -ldflags='-s -w' $(PACKAGE)@$$version
	mv $(TOOLS)/new/$$name $@

clean:
	@rm -rf .tools bin dist
	find . -name node_modules -type d -prune -exec rm -rf {} +
