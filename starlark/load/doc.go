// Package load turns BUILD files into a graph of targets with their actions.
//
// It works in three phases. Loading evaluates the BUILD file of every package that the wanted patterns or the labels
// found so far reach; calling a rule there declares a target. Resolution turns the labels in attributes into edges,
// checks that they exist and are visible, and orders the targets. Analysis calls each rule's implementation, after those
// of its dependencies, which returns providers and declares actions.
//
// Evaluation is a sandbox. A BUILD or .bzl file sees the files that it names through glob, read_json and load, and
// nothing else: no clock, no environment, no network, no process; steps and memory are bounded, and recursion is not in the
// language. What is wrong is collected, not thrown: one pass reports every bad target.
//
// The built-in rules are Starlark too, and come from outside as the prelude: this package knows no rule.
package load
