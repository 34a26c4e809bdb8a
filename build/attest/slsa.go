package attest

import (
	"cmp"
	"slices"
	"strings"
)

// InTotoType is the media type of a statement of in-toto.
const InTotoType = "application/vnd.in-toto+json"

const (
	statementType  = "https://in-toto.io/Statement/v1"
	provenanceType = "https://slsa.dev/provenance/v1"
	// buildType is what docs/provenance.md describes. Raise the version when a parameter changes its meaning.
	buildType = project + "/blob/main/docs/provenance.md#v1"
)

// A Build is how an image came to be.
type Build struct {
	Image    string            // repository, or the target where nobody knows one
	Digest   string            // hexadecimal SHA-256 of the image's manifest
	Version  string            // of mwbuild
	Target   string            // label
	Config   string            // name of a configuration, or ""
	Platform string            // os/arch
	Defines  map[string]string // what conditions of the image asked for, and what it was
	Args     []string          // names of build arguments that the command line gave
	Sources  []Checkout
	Bases    []Base
	Files    []File
}

// A Checkout is a repository that files of the build came from. The Path of its Source is not looked at.
type Checkout struct {
	Source
	Place string // folder of the workspace that it lies in, "" for the one that holds the workspace
}

// A Base is an image that the build took from elsewhere.
type Base struct {
	URL    string // package URL
	Digest string // hexadecimal SHA-256
}

// A File is one that says what else went into the build, such as a lock.
type File struct {
	Path   string // in the workspace
	SHA256 string // hexadecimal
}

type statement struct {
	Type          string     `json:"_type"`
	Subject       []resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     struct {
		BuildDefinition struct {
			BuildType          string     `json:"buildType"`
			ExternalParameters parameters `json:"externalParameters"`
			Dependencies       []resource `json:"resolvedDependencies,omitempty"`
		} `json:"buildDefinition"`
		RunDetails struct {
			Builder struct {
				ID      string            `json:"id"`
				Version map[string]string `json:"version"`
			} `json:"builder"`
		} `json:"runDetails"`
	} `json:"predicate"`
}

// parameters are what docs/provenance.md says of them.
type parameters struct {
	Target    string            `json:"target"`
	Config    string            `json:"config,omitempty"`
	Platform  string            `json:"platform"`
	Defines   map[string]string `json:"defines,omitempty"`
	BuildArgs []string          `json:"buildArgs,omitempty"`
}

// resource is a ResourceDescriptor of in-toto.
type resource struct {
	Name        string            `json:"name,omitempty"`
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest"`
	Annotations map[string]any    `json:"annotations,omitempty"`
}

// Statement writes the build as a statement of in-toto about the image, with SLSA's provenance v1.
func (b *Build) Statement() ([]byte, error) {
	s := statement{Type: statementType, Subject: []resource{{Name: b.Image, Digest: map[string]string{"sha256": b.Digest}}}, PredicateType: provenanceType}
	def := &s.Predicate.BuildDefinition
	def.BuildType = buildType
	def.ExternalParameters = parameters{b.Target, b.Config, b.Platform, b.Defines, slices.Sorted(slices.Values(b.Args))}
	for _, src := range slices.SortedFunc(slices.Values(b.Sources), func(a, b Checkout) int { return strings.Compare(a.Place, b.Place) }) {
		r := resource{Name: cmp.Or(src.Place, "workspace"), Digest: map[string]string{"gitCommit": src.Commit}, Annotations: map[string]any{"dirty": src.Dirty}}
		if src.URL != "" {
			r.URI = src.URL + "@" + src.Commit
		}
		def.Dependencies = append(def.Dependencies, r)
	}
	for _, base := range slices.SortedFunc(slices.Values(b.Bases), func(a, b Base) int { return cmp.Or(strings.Compare(a.URL, b.URL), strings.Compare(a.Digest, b.Digest)) }) {
		def.Dependencies = append(def.Dependencies, resource{URI: base.URL, Digest: map[string]string{"sha256": base.Digest}})
	}
	for _, f := range slices.SortedFunc(slices.Values(b.Files), func(a, b File) int { return strings.Compare(a.Path, b.Path) }) {
		def.Dependencies = append(def.Dependencies, resource{Name: f.Path, Digest: map[string]string{"sha256": f.SHA256}})
	}
	s.Predicate.RunDetails.Builder.ID = project + "@" + b.Version
	s.Predicate.RunDetails.Builder.Version = map[string]string{"mwbuild": b.Version}
	return indented(s)
}
