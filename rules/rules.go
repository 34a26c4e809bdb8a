// Package rules is all that knows MediaWiki: the built-in rules, written in Starlark.
package rules

import "embed"

// Prelude holds the Starlark files whose public globals every BUILD and .bzl file has without loading them.
//
//go:embed *.star
var Prelude embed.FS
