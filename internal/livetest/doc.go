// Package livetest tests mwbuild as people use it: the real binary, on a real MediaWiki tree, with a real engine, real
// registries and the ordinary tools that read what it makes. It holds tests only, under the build tag live.
//
// They need root, Debian's package mirror, and what .ci/setup installs (runc, skopeo, umoci) and builds (the pinned tools
// of the module tools). Nothing of the user's reaches the binary: each test has a home, a cache and a temporary folder of
// its own.
//
// TestSpine runs again, with engines of other kinds, those tests that hold with any.
package livetest
