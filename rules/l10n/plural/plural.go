// Package plural reads CLDR's plural rules and compiles them as MediaWiki does.
//
// MediaWiki keeps the rules in languages/data: plurals.xml is CLDR's, plurals-mediawiki.xml its own. It stores the rules
// of a language as written and in reverse Polish notation, which the class Evaluator of wikimedia/cldr-plural-rule-parser
// makes and runs. Package plural writes the same notation; it evaluates nothing.
package plural

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Rules are the plural rules of one language. The form "other", which has no condition, is left out.
type Rules struct {
	Rules []string // as written, samples and all: "n = 1 @integer 1"
	Types []string // the name of each: "one"
	// Compiled is each rule in reverse Polish notation: "n 1 in". It is empty where one of the rules has an error: so
	// MediaWiki has it, which only logs the error, and then knows no plural forms but by number.
	Compiled []string
}

// A File is an XML file of plural rules; Name is for errors.
type File struct {
	Name string
	Data []byte
}

// Load returns the rules by language code, as LocalisationCache::loadPluralFile reads them from plurals.xml and
// plurals-mediawiki.xml in this order: a later entry of a language replaces an earlier one whole. Languages may share
// one *Rules. An XML file with errors is refused, of which MediaWiki's parser would take what precedes the error, or nothing.
// An error in a rule is none here; see [Rules].
func Load(files ...File) (map[string]*Rules, error) {
	all := map[string]*Rules{}
	for _, f := range files {
		if err := load(f, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// spaces makes of white space in an attribute what XML makes of it.
var spaces = strings.NewReplacer("\t", " ", "\r\n", " ", "\r", " ", "\n", " ")

// load adds the rules of one file to all.
func load(f File, all map[string]*Rules) error {
	d := xml.NewDecoder(bytes.NewReader(f.Data))
	var (
		set     *Rules   // of the <pluralRules> at hand
		locales string   // its languages
		rule    []string // the name and the pieces of text of the <pluralRule> at hand
		root    bool
	)
	refuse := func(what string) error {
		line, col := d.InputPos()
		return fmt.Errorf("%s:%d:%d: %s", f.Name, line, col, what)
	}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && root {
			return nil
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("no XML element")
		}
		if err != nil {
			return fmt.Errorf("%s: plural rules: %w", f.Name, err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			root = true
			switch t.Name.Local {
			case "pluralRules":
				if set != nil {
					return refuse("<pluralRules> within <pluralRules>")
				}
				set, locales = &Rules{}, attr(t, "locales")
			case "pluralRule":
				if rule != nil {
					return refuse("<pluralRule> within <pluralRule>")
				}
				rule = []string{attr(t, "count")}
			}
		case xml.CharData:
			if rule != nil {
				rule = append(rule, string(t))
			}
		case xml.EndElement:
			switch t.Name.Local {
			case "pluralRules":
				set.Compiled = compileAll(set.Rules)
				for code := range strings.SplitSeq(locales, " ") {
					all[code] = set
				}
				set = nil
			case "pluralRule":
				if set != nil && rule[0] != "other" {
					set.Types = append(set.Types, rule[0])
					set.Rules = append(set.Rules, strings.Join(rule[1:], ""))
				}
				rule = nil
			}
		}
	}
}

// attr is the value of an attribute, or nothing.
func attr(t xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return spaces.Replace(a.Value)
		}
	}
	return ""
}

// compileAll compiles rules, or gives none if one of them has an error.
func compileAll(rules []string) []string {
	var compiled []string
	for _, r := range rules {
		c, err := Compile(r)
		if err != nil {
			return nil
		}
		compiled = append(compiled, c)
	}
	return compiled
}
