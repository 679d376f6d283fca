# make check   formatting, vet, linters, tidy go.mod files, each module built alone
# make test    coverage floors, the FIPS run, and every test of every module with -race
# make fuzz    each fuzz target for FUZZTIME (30s)
# make example the programs of examples/ at work, attacked, and measured
# make bench   every benchmark COUNT times (6), summed up by benchstat
# make vuln    govulncheck, module by module; needs the vulnerability database
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
EXAMPLE   ?=
TESTFLAGS ?=
FUZZTIME  ?= 30s
BENCH     ?= .
COUNT     ?= 6

# The packages whose statements must be tested, and the floor in percent.
COVERED := ./envelope ./keys ./replay
FLOOR   := 95

# Tools, each in a file named after its version.
TOOLS       := $(CURDIR)/.tools/$(shell $(GO) env GOVERSION)
STATICCHECK := $(TOOLS)/staticcheck-v0.8.2
GOLANGCI    := $(TOOLS)/golangci-lint-v2.15.0
GOVULNCHECK := $(TOOLS)/govulncheck-v1.9.0
BENCHSTAT   := $(TOOLS)/benchstat-v0.0.0-20260908200009-22c9c6c9d4da

.PHONY: all check fmt vet staticcheck lint tidy build test peers race cover fips fuzz example bench vuln tools clean
all: check test

check: fmt vet staticcheck lint tidy build

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

# The tests with the race detector come last, so that their count closes the run.
test: cover fips race

# What tests of some modules talk to: see .ci/peers.
peers:
	@.ci/peers

# The race detector sleeps for a second at the end of each process; ten
# milliseconds suffice.
race: peers
	@echo "# go test $(RACE) work"
	GORACE=atexit_sleep_ms=10 QRT_REQUIRE_PEERS=1 $(GO) test $(RACE) $(TESTFLAGS) -json work | $(GO) run ./internal/testsum

cover:
	@echo "# coverage, at least $(FLOOR) %"
	$(GO) test -cover $(TESTFLAGS) $(COVERED) | awk -v floor=$(FLOOR) -v want=$(words $(COVERED)) '
		{ print }
		match($$0, /coverage: [0-9.]+%/) {
			got++
			if (substr($$0, RSTART + 10, RLENGTH - 11) + 0 < floor) bad = bad " " $$2
		}
		END {
			if (got != want) { print "coverage of " got + 0 " packages found, want " want; exit 1 }
			if (bad) { print "coverage is below " floor " %:" bad; exit 1 }
		}'

# Without the race detector the model runs all of its schedules, and drains and
# kills all of their rounds.
fips:
	@echo "# GODEBUG=fips140=only"
	GODEBUG=fips140=only $(GO) test -count=1 $(COVERED) .
	GODEBUG=fips140=only $(GO) test -count=1 -run='^(TestDrainUnderLoad|TestKill)$$' ./sqlite/sqlitequeue

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

# EXAMPLE=--json prints the report for a program, --logs shows the processes' logs.
example:
	@$(GO) run ./examples/runner $(EXAMPLE)

bench: $(BENCHSTAT)
	@mkdir -p .tools
	$(GO) test -run='^$$' -bench='$(BENCH)' -benchmem -count=$(COUNT) work | tee .tools/bench.txt
	$(BENCHSTAT) .tools/bench.txt

vuln: $(GOVULNCHECK)
	@for module in $(MODULES); do
		echo "# govulncheck ($$module)"
		(cd "$$module" && GOWORK=off $(GOVULNCHECK) ./...)
	done

tools: $(STATICCHECK) $(GOLANGCI) $(GOVULNCHECK) $(BENCHSTAT)

$(STATICCHECK): PACKAGE = honnef.co/go/tools/cmd/staticcheck
$(GOLANGCI):    PACKAGE = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(GOVULNCHECK): PACKAGE = golang.org/x/vuln/cmd/govulncheck
$(BENCHSTAT):   PACKAGE = golang.org/x/perf/cmd/benchstat

# The version is what follows the command's name in the file's name.
$(STATICCHECK) $(GOLANGCI) $(GOVULNCHECK) $(BENCHSTAT):
	@name=$(notdir $(PACKAGE))
	version=$(patsubst $(notdir $(PACKAGE))-%,%,$(notdir $@))
	echo "# go install $(PACKAGE)@$$version"
	mkdir -p $(TOOLS)/new
	GOWORK=off GOFLAGS= GOBIN=$(TOOLS)/new $(GO) install -ldflags='-s -w' $(PACKAGE)@$$version
	mv $(TOOLS)/new/$$name $@

clean:
	@rm -rf .tools bin
	find . -name node_modules -type d -prune -exec rm -rf {} +
