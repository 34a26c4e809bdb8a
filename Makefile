# make build    .bin/mwbuild
# make example  what the README shows: an image of a small wiki, then a real one
# make unit     the tests that need nothing but Go
# make live     the tests that need root, an engine, registries and a real MediaWiki tree
# make test     all that a change must pass, those two among it
# make setup    what the tests need: packages of Debian, and the pinned tools in .bin
# make clean    remove .bin

export GOFLAGS ?= -buildvcs=false
.PHONY: build example unit live test setup clean

build:
	go build -o .bin/mwbuild ./cmd/mwbuild

example:
	examples/run

unit:
	go test ./...

live: setup
	MWBUILD_BUILDKIT_BIN=$(CURDIR)/.bin go test -tags live -count=1 -timeout 15m ./build/buildkit ./internal/livetest ./rules/gen ./starlark/buildfile

test:
	.ci/run

setup:
	.ci/setup

clean:
	rm -rf .bin
