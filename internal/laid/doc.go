// Package laid has real MediaWiki trees for tests under the build tag live: what examples/mediawiki/lay lays. It needs
// Debian's package mirror, once for each suite.
package laid
