package l10n

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/mwbuild/mwbuild/rules/l10n/php"
)

// messages writes all messages: along the chain, of each language JSON's, then those of ExtensionMessagesFiles and of
// MessagesXx.php; of a key, the first.
func (o *output) messages() {
	o.origins()
	links := o.in.Links
	if o.format == lateArray {
		links = links[:1]
		o.dst = append(o.dst, messagesOpen...)
	}
	for i := range links {
		link := &links[i]
		for _, s := range o.sections(link) {
			o.section(s.Fragment, s.from, s.to)
		}
		d := o.links[i]
		for _, f := range d.fileMessages {
			for k, v := range f.messages.All() {
				n, ok := o.fresh(k)
				if ok {
					o.message(n, o.from[n], v)
				}
			}
		}
		if d.coreMessages == nil {
			continue
		}
		from := o.laterSources(i, d.coreMessages)
		for k, v := range d.coreMessages.All() {
			n, ok := o.fresh(k)
			if !ok {
				continue
			}
			o.message(n, cmp.Or(o.from[n], from[n], o.in.Language), v)
		}
	}
	o.starts = append(o.starts, uint32(len(o.dst)-o.base))
	if o.format == lateArray {
		o.closeMessages()
	}
}

// messagesOpen is before the messages where they are an array of their own.
const messagesOpen = "\t'messages' => [\n"

// closeMessages ends the array of messages. There is none without messages, and a list goes without its keys.
func (o *output) closeMessages() {
	begin := o.base + int(o.starts[0])
	if len(o.order) == 0 {
		o.dst = o.dst[:begin-len(messagesOpen)]
		return
	}
	if o.isList(o.order) {
		written := slices.Clone(o.dst[begin:])
		o.dst = o.dst[:begin]
		for i, n := range o.order {
			line := written[o.starts[i]-o.starts[0] : o.starts[i+1]-o.starts[0]]
			o.dst = append(o.dst, "\t\t"...)
			o.dst = append(o.dst, line[len("\t\t")+len(o.keys[n].export)+len(" => "):]...)
		}
	}
	o.dst = append(o.dst, "\t],\n"...)
}

// isList tells whether keys are 0, 1, 2 … in this order.
func (o *output) isList(keys []uint32) bool {
	for i, n := range keys {
		if o.keys[n].export != strconv.Itoa(i) {
			return false
		}
	}
	return true
}

// origins finds from which languages messages of ExtensionMessagesFiles are said to come: each from the first of the chain in the
// first file that has it. recache() reads these files before any JSON, so that holds for JSON's messages under these keys too.
func (o *output) origins() {
	o.from = nil
	type source struct {
		place
		link     int
		messages *php.Array
	}
	var sources []source
	for i, d := range o.links {
		for _, f := range d.fileMessages {
			sources = append(sources, source{f.place, i, f.messages})
		}
	}
	if len(sources) == 0 {
		return
	}
	slices.SortStableFunc(sources, func(a, b source) int { return a.place.compare(b.place) })
	o.from = map[uint32]string{}
	for _, s := range sources {
		for k := range s.messages.All() {
			n := o.number(k)
			if _, ok := o.from[n]; !ok {
				o.from[n] = o.in.Links[s.link].Language
				o.stamps[n] = o.now + 1
			}
		}
	}
}

// laterSources finds from which languages messages of link i's MessagesXx.php are said to come, since this says nothing of its own:
// each from the first language behind it whose JSON has it, if one has.
func (o *output) laterSources(i int, messages *php.Array) map[uint32]string {
	wanted := map[uint32]bool{}
	for k := range messages.All() {
		wanted[o.number(k)] = true
	}
	found := map[uint32]string{}
	for j := i + 1; j < len(o.in.Links) && o.format != lateArray; j++ {
		link := &o.in.Links[j]
		for _, s := range o.sections(link) {
			for _, n := range s.numbers[s.from:s.to] {
				if wanted[n] {
					found[n] = link.Language
					delete(wanted, n)
				}
			}
		}
	}
	return found
}

// A linkSection is a section of one of a link's fragments.
type linkSection struct {
	*Fragment
	messageSection
}

// sections returns the link's sections of messages in the order of MediaWiki's message folders.
func (o *output) sections(link *Link) []linkSection {
	var all []linkSection
	for i, f := range link.Fragments {
		if f == nil {
			continue
		}
		for _, s := range f.sections {
			// Core's folders replace those that components have under their keys.
			if i == 0 && !f.component || !o.c.coreKeys[s.key] {
				all = append(all, linkSection{f, s})
			}
		}
	}
	var registered []string
	if len(o.in.MessageKeys) > 0 {
		for _, d := range CoreMessageDirs(o.c.version) {
			registered = append(registered, d.Key)
		}
		registered = append(registered, o.in.MessageKeys...)
	}
	return together(all, registered, func(s linkSection) string { return s.key })
}

// number returns a key's number, which may be a new one.
func (o *output) number(k php.Key) uint32 {
	n := o.c.keys.number(k.String())
	if int(n) >= len(o.keys) {
		o.keys, o.lines, o.serials = o.c.keys.all()
		o.room()
	}
	return n
}

// fresh tells whether a message is not written yet, and notes that it will be.
func (o *output) fresh(k php.Key) (uint32, bool) {
	n := o.number(k)
	if o.stamps[n] == o.now {
		return n, false
	}
	o.stamps[n] = o.now
	return n, true
}

// message writes one message of a PHP file.
func (o *output) message(n uint32, language string, v php.Value) {
	text, _ := php.ToString(v)
	o.one(n, language, []byte(text))
}

// one writes one message.
func (o *output) one(n uint32, language string, text []byte) {
	start := uint32(len(o.dst) - o.base)
	key := &o.keys[n]
	o.dst = appendMessage(o.dst, o.format, key, language, text)
	o.note(n, start)
}

func (o *output) note(n, start uint32) {
	o.at[n] = uint32(len(o.order))
	o.order = append(o.order, n)
	o.starts = append(o.starts, start)
	if o.format == CDB {
		o.entries = append(o.entries, cdbEntry{o.keys[n].hash, start})
	}
}

// section writes a fragment's messages between two indices, those that are not written yet. Neighbours are copied at once.
func (o *output) section(f *Fragment, from, to int) {
	stamps, now := o.stamps, o.now
	r := f.recordsFor(o.format, o.id)
	if r == nil {
		for i := from; i < to; i++ {
			n := f.numbers[i]
			language := f.language
			switch stamps[n] {
			case now:
				continue
			case now + 1:
				language = o.from[n]
			}
			stamps[n] = now
			o.one(n, language, f.value(i))
		}
		return
	}
	begin := from // of the messages that are to be copied
	for i := from; i < to; i++ {
		n := f.numbers[i]
		if stamps[n] < now {
			stamps[n] = now
			continue
		}
		o.copy(f, r, begin, i)
		begin = i + 1
		if stamps[n] == now+1 {
			stamps[n] = now
			o.one(n, o.from[n], f.value(i))
		}
	}
	o.copy(f, r, begin, to)
}

// copy writes the messages from one to another index.
func (o *output) copy(f *Fragment, r *records, from, to int) {
	if from == to {
		return
	}
	shift := uint32(len(o.dst)-o.base) - r.offsets[from]
	o.dst = append(o.dst, r.data[r.offsets[from]:r.offsets[to]]...)
	numbers, offsets := f.numbers[from:to], r.offsets[from:to]
	first := len(o.order)
	o.order = append(o.order, numbers...)
	o.starts = slices.Grow(o.starts, len(numbers))
	for i, n := range numbers {
		o.at[n] = uint32(first + i)
		o.starts = append(o.starts, offsets[i]+shift)
	}
	if o.format == CDB {
		o.entries = slices.Grow(o.entries, len(numbers))
		for i, n := range numbers {
			o.entries = append(o.entries, cdbEntry{o.keys[n].hash, offsets[i] + shift})
		}
	}
}

// list writes the keys of the messages.
func (o *output) list() {
	o.record("list")
	if o.format == CDB {
		start := len(o.dst)
		dst := append(beginRecord(o.dst, "list"), `a:1:{s:8:"messages";a:`...)
		dst = strconv.AppendInt(dst, int64(len(o.order)), 10)
		dst = append(dst, ":{"...)
		dst = o.appendNumbered(dst)
		o.dst = endRecord(append(dst, "}}"...), start, len("list"))
		return
	}
	dst := append(o.dst, "\t'list' => "...)
	dst = o.openValue(dst)
	dst = append(dst, "\t\t\t'messages' => [\n"...)
	if o.c.version.lists() {
		// Neighbours have consecutive numbers most of the time.
		for i := 0; i < len(o.order); {
			first := o.order[i]
			next := first + 1
			for i++; i < len(o.order) && o.order[i] == next; i++ {
				next++
			}
			from := uint32(0)
			if first > 0 {
				from = o.keys[first-1].end
			}
			dst = append(dst, o.lines[from:o.keys[next-1].end]...)
		}
	} else {
		index := newCounter("\t\t\t\t", " => ")
		for _, n := range o.order {
			dst = append(dst, index.next()...)
			dst = append(dst, o.keys[n].export...)
			dst = append(dst, ",\n"...)
		}
	}
	o.dst = append(dst, "\t\t\t],\n\t\t],\n\t],\n"...)
}

// appendNumbered appends the keys of the messages as a serialized list has its elements. There are millions of them in all languages, and all are
// short: they are copied in pieces of one size, whatever is behind them.
func (o *output) appendNumbered(dst []byte) []byte {
	const piece = 32
	index := newCounter("i:", ";")
	size := 2 * piece
	for _, n := range o.order {
		size += len("i:4294967295;") + int(o.serials.ends[n]-o.serials.from(n))
	}
	dst = slices.Grow(dst, size)
	at := len(dst)
	dst = dst[:at+size]
	text := o.serials.text
	for _, n := range o.order {
		at += copy(dst[at:], index.next())
		from, to := int(o.serials.from(n)), int(o.serials.ends[n])
		end := at + to - from
		for ; from < to; from, at = from+piece, at+piece {
			if from+piece > len(text) {
				copy(dst[at:], text[from:to])
				break
			}
			*(*[piece]byte)(dst[at:]) = *(*[piece]byte)(text[from:])
		}
		at = end
	}
	return dst[:at]
}

// A counter writes 0, 1, 2 … between two texts.
type counter struct {
	text        []byte
	first, last int // digits
}

func newCounter(before, behind string) *counter {
	c := &counter{first: len(before), last: len(before)}
	c.text = append(append(append(c.text, before...), '0'-1), behind...)
	return c
}

// next returns the next text, which is good until the call of next behind it.
func (c *counter) next() []byte {
	for i := c.last; i >= c.first; i-- {
		if c.text[i] < '9' {
			c.text[i]++
			return c.text
		}
		c.text[i] = '0'
	}
	c.text = slices.Insert(c.text, c.first, '1')
	c.last++
	return c.text
}

// openValue writes what is before the elements of an array that is the value of an item.
func (o *output) openValue(dst []byte) []byte {
	if o.c.version.lists() {
		return append(dst, "[\n\t\t'v',\n\t\t[\n"...)
	}
	return append(dst, "[\n\t\t0 => 'v',\n\t\t1 => [\n"...)
}

// preload writes what MediaWiki loads with a language at once: some messages and two items.
func (o *output) preload() error {
	wanted, err := o.wantedMessages()
	if err != nil {
		return err
	}
	start := len(o.dst)
	o.record("preload")
	if o.format == CDB {
		parts := o.preloadedItems()
		if !o.c.version.nullsPreloaded() {
			wanted = slices.DeleteFunc(wanted, func(n uint32) bool { _, ok := o.written(n); return !ok })
			parts = slices.DeleteFunc(parts, func(i namedValue) bool { return i.value == nil })
		}
		dst := append(beginRecord(o.dst, "preload"), "a:"...)
		dst = strconv.AppendInt(dst, int64(1+len(parts)), 10)
		dst = append(dst, `:{s:8:"messages";a:`...)
		dst = strconv.AppendInt(dst, int64(len(wanted)), 10)
		dst = append(dst, ":{"...)
		for _, n := range wanted {
			key := &o.keys[n]
			dst = append(dst, o.serials.of(n)...)
			if text, ok := o.written(n); ok {
				dst = append(dst, text[8+len(messagePrefix)+len(key.key):]...)
			} else {
				dst = append(dst, "N;"...)
			}
		}
		dst = append(dst, '}')
		for _, v := range parts {
			dst = php.AppendSerialize(dst, v.name)
			dst = php.AppendSerialize(dst, v.value)
		}
		o.dst = endRecord(append(dst, '}'), start, len("preload"))
		return nil
	}
	dst := append(o.dst, "\t'preload' => "...)
	dst = o.openValue(dst)
	dst = append(dst, "\t\t\t'messages' => [\n"...)
	keyless := o.c.version.lists() && o.isList(wanted)
	for _, n := range wanted {
		key := &o.keys[n]
		dst = append(dst, "\t\t\t\t"...)
		if !keyless {
			dst = append(dst, key.export...)
			dst = append(dst, " => "...)
		}
		if line, ok := o.written(n); ok {
			dst = append(dst, line[len(key.line):]...)
		} else {
			dst = append(dst, "null,\n"...)
		}
	}
	dst = append(dst, "\t\t\t],\n"...)
	for _, v := range o.preloadedItems() {
		dst = append(dst, "\t\t\t'"...)
		dst = append(dst, v.name...)
		dst = append(dst, "' => "...)
		if a, ok := v.value.(*php.Array); ok {
			dst = php.AppendStaticArray(dst, a, 3, o.c.version.lists())
		} else {
			dst = append(dst, "null"...)
		}
		dst = append(dst, ",\n"...)
	}
	o.dst = append(dst, "\t\t],\n\t],\n"...)
	return nil
}

// A namedValue is an item that is loaded with a language.
type namedValue struct {
	name  string
	value php.Value
}

func (o *output) preloadedItems() []namedValue {
	return []namedValue{{"dateFormats", o.dates}, {"namespaceNames", o.namespaces}}
}

// wantedMessages are the keys of $preloadedMessages, each once.
func (o *output) wantedMessages() ([]uint32, error) {
	all := o.preloaded.(*php.Array)
	wanted := make([]uint32, 0, all.Len())
	seen := make(map[uint32]bool, all.Len())
	for k, v := range all.All() {
		var key php.Key
		switch v := v.(type) {
		case string:
			key = php.StringKey(v)
		case int64:
			key = php.IntKey(v)
		default:
			return nil, fmt.Errorf("$preloadedMessages: entry %s is no key of a message", k)
		}
		if n := o.number(key); !seen[n] {
			seen[n] = true
			wanted = append(wanted, n)
		}
	}
	return wanted, nil
}

// written returns a message as it was written.
func (o *output) written(n uint32) ([]byte, bool) {
	if o.stamps[n] != o.now {
		return nil, false
	}
	i := o.at[n]
	return o.dst[o.base+int(o.starts[i]) : o.base+int(o.starts[i+1])], true
}
