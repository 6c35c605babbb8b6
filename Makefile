# Sallyport. `make demo` runs the main job, `make test` the tests; both need Go 1.26, git and a C compiler (for the race tests), nothing else.

export CGO_ENABLED = 0
GOFLAGS_BUILD = -trimpath -buildvcs=false
PROGRAMS = sallyport sallyport-station sallyport-reader sallyport-verify
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0

.PHONY: all fetch build demo test test-long test-race test-peer bench check fuzz vet clean

all: build

fetch: ## what comes over the network: the modules and the checker
	go mod download
	go mod verify
	go run $(STATICCHECK) -version

build: ## the four programs, static, in build/
	@mkdir -p build
	@go build $(GOFLAGS_BUILD) -o build/ $(addprefix ./cmd/,$(PROGRAMS))

demo: ## carry sallyport-verify across a gap, then attack the enclave
	@go run $(GOFLAGS_BUILD) ./demo

# Nothing from the test cache: tests that build the programs and drive them would not notice that these have changed.
test: build ## all tests, the long ones included
	go test -count=1 ./... -timeout 60m
	go test ./internal/trust -run 'Passphrase|Vectors' -long

# e2e drives programs that are built without the detector: it would watch the test alone.
test-race: build
	CGO_ENABLED=1 go test -race -short $$(go list ./... | grep -v '/e2e$$') -timeout 60m

test-peer: ## against the real Guix and Nix; wants root on Debian. What cannot run is not passed: it says so
	@contrib/peer/peer up; s=$$?; if [ $$s = 69 ]; then \
	  echo "test-peer: NOT RUN AND NOT PASSED: nothing was compared with the real Guix and Nix; the reason stands above" >&2; exit 0; fi; \
	  [ $$s = 0 ] || exit $$s; \
	  go test -tags peer ./peer -count=1 -v -timeout 60m

bench: build ## the formats beside the real Guix, Nix and go-nix, in one run; then every benchmark of the packages
	cd bench && go run . -runs 5
	go test -run '^$$' -bench . -benchmem ./guix/... ./internal/...

# A new input is made smaller for a minute by default: most of the time would go there, and not into new inputs.
FUZZTIME = 30s
fuzz: ## every fuzz target for FUZZTIME each
	@for p in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$p | grep ^Fuzz); do \
	    echo "== $$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$p || exit 1; \
	  done; done

vet:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go vet -tags peer ./peer
	go run $(STATICCHECK) ./...

check: vet test demo test-race test-peer ## all that continuous integration does

clean:
	rm -rf build demo-zones
