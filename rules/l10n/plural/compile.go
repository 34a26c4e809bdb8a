package plural

import (
	"errors"
	"fmt"
	"strings"
)

// The types of expressions.
const (
	boolean = "boolean"
	number  = "number"
	numbers = "range" // a list of numbers and ranges; a number is one too
)

// operator tells what an operator binds like, takes and gives.
type operator struct {
	precedence          int
	left, right, result string
}

// operators are all operators by the name that they have in the compiled form. The dash stands for white space.
var operators = map[string]operator{
	"or":         {2, boolean, boolean, boolean},
	"and":        {3, boolean, boolean, boolean},
	"is":         {4, number, number, boolean},
	"is-not":     {4, number, number, boolean},
	"in":         {4, number, numbers, boolean},
	"not-in":     {4, number, numbers, boolean},
	"within":     {4, number, numbers, boolean},
	"not-within": {4, number, numbers, boolean},
	"mod":        {5, number, number, number},
	",":          {6, numbers, numbers, numbers},
	"..":         {7, number, number, numbers},
}

// signs are the operators that are no words, by what they are in the compiled form.
var signs = []struct{ text, name string }{
	{"..", ".."}, {"!=", "not-in"}, {",", ","}, {"=", "in"}, {"%", "mod"},
}

// symbols are the operands that are no numbers, a letter each.
const symbols = "nivwft"

const (
	blanks  = " \t\r\n"
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ@"
)

// expr is an expression: its type and its compiled form.
type expr struct{ typ, rpn string }

// fits tells whether e can stand where typ is wanted.
func (e expr) fits(typ string) bool { return e.typ == typ || typ == numbers && e.typ == number }

// converter compiles one rule by Dijkstra's shunting yard.
type converter struct {
	rule      string
	pos       int
	operators []string
	operands  []expr
}

// Compile returns a rule in reverse Polish notation, as Evaluator::compile of wikimedia/cldr-plural-rule-parser does, which
// reads the words of older CLDR ("n mod 10 is 1") beside the signs of newer, and writes the words; it ignores the samples
// that follow a rule, and refuses a rule that is nothing else. Letter case is ignored. Numbers stay as they are written.
func Compile(rule string) (string, error) {
	c := converter{rule: rule}
	rpn, err := c.compile()
	if err != nil {
		return "", fmt.Errorf("plural rule %q: %w", rule, err)
	}
	return rpn, nil
}

func (c *converter) compile() (string, error) {
	for wantOperand := true; ; wantOperand = !wantOperand {
		c.pos += span(c.rule[c.pos:], blanks)
		at := c.pos
		text, isOperator, err := c.next()
		if err != nil {
			return "", err
		}
		if text == "" {
			break
		}
		if isOperator == wantOperand {
			return "", fmt.Errorf("unexpected %q at byte %d", text, at+1)
		}
		if !isOperator {
			c.operands = append(c.operands, expr{number, text})
			continue
		}
		for n := len(c.operators); n > 0 && operators[text].precedence <= operators[c.operators[n-1]].precedence; n-- {
			if err := c.reduce(); err != nil {
				return "", err
			}
		}
		c.operators = append(c.operators, text)
	}
	for len(c.operators) > 0 {
		if err := c.reduce(); err != nil {
			return "", err
		}
	}
	// Operands and operators alternate, so there is one operand left, or nothing was there.
	if len(c.operands) == 0 {
		return "", errors.New("no condition")
	}
	if e := c.operands[0]; e.typ == boolean {
		return e.rpn, nil
	}
	return "", errors.New("not a condition, but a number or a range")
}

// reduce applies the last operator to the last two operands.
func (c *converter) reduce() error {
	name := c.operators[len(c.operators)-1]
	c.operators = c.operators[:len(c.operators)-1]
	n := len(c.operands) - 2
	if n < 0 {
		return fmt.Errorf("%q lacks an operand", name)
	}
	op, left, right := operators[name], c.operands[n], c.operands[n+1]
	if !left.fits(op.left) {
		return fmt.Errorf("what is left of %q is a %s, not a %s", name, left.typ, op.left)
	}
	if !right.fits(op.right) {
		return fmt.Errorf("what is right of %q is a %s, not a %s", name, right.typ, op.right)
	}
	c.operands = append(c.operands[:n], expr{op.result, left.rpn + " " + right.rpn + " " + name})
	return nil
}

// next reads the token that begins here: an operator's name or an operand's text; nothing at the end of the rule or at the
// samples.
func (c *converter) next() (text string, isOperator bool, err error) {
	rest := c.rule[c.pos:]
	if rest == "" {
		return "", false, nil
	}
	if n := span(rest, digits); n > 0 {
		c.pos += n
		return rest[:n], false, nil
	}
	for _, s := range signs {
		if strings.HasPrefix(rest, s.text) {
			c.pos += len(s.text)
			return s.name, true, nil
		}
	}
	n := span(rest, letters)
	if n == 0 {
		return "", false, fmt.Errorf("unexpected character at byte %d", c.pos+1)
	}
	word := strings.ToLower(rest[:n])
	if word == "not" || word == "is" {
		start := n + span(rest[n:], blanks)
		end := start + span(rest[start:], letters)
		both := word + "-" + strings.ToLower(rest[start:end])
		if _, ok := operators[both]; ok {
			c.pos += end
			return both, true, nil
		}
	}
	if _, ok := operators[word]; ok {
		c.pos += n
		return word, true, nil
	}
	if strings.Contains(symbols, word) {
		// MediaWiki's parser takes any piece of the symbols for an operand and goes on after its first letter, where it then
		// finds another operand and stops: so "ni" is an error in the end, but not one of a word.
		c.pos++
		return word, false, nil
	}
	if word == "@integer" || word == "@decimal" {
		return "", false, nil
	}
	return "", false, fmt.Errorf("unknown word %q at byte %d", word, c.pos+1)
}

// span is how many of s's first bytes are in set.
func span(s, set string) int {
	return len(s) - len(strings.TrimLeft(s, set))
}
