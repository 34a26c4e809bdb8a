# make build         .bin/mwbuild
# make example       what the README shows: an image of a small wiki, then a real one
# make unit          the tests that need nothing but Go
# make live          the tests that need root, an engine, registries and a real MediaWiki tree
# make live-engines  what builds a wiki, with engines of all kinds: an ordinary user's, remote, of buildx, behind a balancer (a quarter of an hour)
# make live-publish  100 publications into two registries that fail at random, each ended by kill -9 or not (five minutes)
# make l10n          compiled localisation of all languages against MediaWiki's own compiler, 1.43 and 1.39 (some ten minutes, with ../shared)
# make test          all that a change must pass, unit and live among it
# make setup         what the tests need: packages of Debian, and the pinned tools in .bin
# make clean         remove .bin

export GOFLAGS ?= -buildvcs=false
.PHONY: build example unit live live-engines live-publish l10n test setup clean

build:
	go build -o .bin/mwbuild ./cmd/mwbuild

example:
	examples/run

unit:
	go test ./...

live: setup
	MWBUILD_BUILDKIT_BIN=$(CURDIR)/.bin go test -tags live -count=1 -timeout 45m ./build/buildkit ./internal/livetest ./rules/gen ./rules/l10n/message ./rules/l10n/php ./rules/l10n/plural ./starlark/buildfile

live-engines: setup
	MWBUILD_LIVE_SPINE=all go test -tags live -count=1 -timeout 60m -run 'TestSpine$$' -v ./internal/livetest

live-publish: setup
	MWBUILD_PUBLISH_ROUNDS=100 go test -tags live -count=1 -timeout 60m -run 'TestPublishInterrupted$$' -v ./internal/livetest

l10n: setup
	MWBUILD_L10N=all go test -tags live -count=1 -timeout 60m -run 'TestLocalisation$$' -v ./internal/livetest
	L10N_ALL=1 go test -tags live -count=1 -timeout 60m ./rules/l10n

test:
	.ci/run

setup:
	.ci/setup

clean:
	rm -rf .bin
