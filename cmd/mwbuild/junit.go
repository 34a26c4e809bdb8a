package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"os"
	"strings"
)

// The form of JUnit's files that CI systems read: suites of cases, each of which may have failed.
type (
	junitSuite struct {
		Attrs []xml.Attr `xml:",any,attr"` // of a suite that a test wrote
		Inner string     `xml:",innerxml"`
	}
	junitOwn struct {
		XMLName  xml.Name    `xml:"testsuite"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr,omitempty"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
		Error   *junitFailure `xml:"error"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes a suite for each test: what the test itself wrote where it passed, or else one case.
func (o *opened) writeJUnit(file string, results []*testResult) error {
	var out bytes.Buffer
	out.WriteString(xml.Header + "<testsuites>\n")
	for _, r := range results {
		suites := r.ownSuites()
		if suites == nil {
			log, err := o.testLog(r)
			if err != nil {
				return err
			}
			suites = []any{r.suite(log)}
		}
		for _, s := range suites {
			b, err := xml.MarshalIndent(s, "  ", "  ")
			if err != nil {
				return err
			}
			out.Write(append(b, '\n'))
		}
	}
	out.WriteString("</testsuites>\n")
	if err := os.WriteFile(file, out.Bytes(), 0o666); err != nil {
		return fmt.Errorf("--junit: %w", err)
	}
	return nil
}

// suite is a test as one case.
func (r *testResult) suite(log string) junitOwn {
	seconds := fmt.Sprintf("%.3f", r.Seconds)
	file, _, _ := strings.Cut(r.pos, ":")
	pkg, name, _ := strings.Cut(r.Label, ":")
	c := junitCase{Name: name, Class: pkg, File: file, Time: seconds}
	s := junitOwn{Name: r.Label, Tests: 1, Time: seconds}
	why := &junitFailure{Message: testWords[r.Status]}
	for _, err := range r.errs {
		why.Text += err.Error() + "\n"
	}
	switch r.Status {
	case testFailed, testTimeout:
		s.Failures, c.Failure = 1, why
		c.Out = tail(log, 10*testLogTail)
	case testNoStatus:
		why.Text = "something that it needs could not be built, or the command ended before it ran\n"
		s.Errors, c.Error = 1, why
	}
	s.Cases = []junitCase{c}
	return s
}

// ownSuites are the suites of the file that the test wrote; nil where it is none of JUnit's.
func (r *testResult) ownSuites() []any {
	if r.Status != testPassed || r.xml == nil {
		return nil
	}
	var root struct {
		XMLName xml.Name
		junitSuite
		Suites []junitSuite `xml:"testsuite"`
	}
	if xml.Unmarshal(r.xml, &root) != nil {
		return nil
	}
	var found []junitSuite
	switch root.XMLName.Local {
	case "testsuites":
		found = root.Suites
	case "testsuite":
		found = []junitSuite{root.junitSuite}
	}
	var suites []any
	for _, s := range found {
		suites = append(suites, struct {
			XMLName xml.Name `xml:"testsuite"`
			junitSuite
		}{junitSuite: s})
	}
	return suites
}
