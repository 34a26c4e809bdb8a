package l10n

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/mwbuild/mwbuild/rules/l10n/message"
	"github.com/mwbuild/mwbuild/rules/l10n/php"
)

// A Source is a file; Name is for errors.
type Source struct {
	Name string
	Data []byte
}

// A Section is the files of one language under one key of MessagesDirs or TranslationAliasesDirs, in the order of the key's
// folders.
type Section struct {
	Key   string
	Files []Source
}

// FragmentInput is what a component has in one language: its sections in the order of registration.
type FragmentInput struct {
	Messages []Section
	Aliases  []Section // of TranslationAliasesDirs
	// Component tells that this is not MediaWiki's core: messages under the keys of core's folders are not read then, since
	// core's replace them.
	Component bool
}

// A Fragment is one component's messages and JSON aliases in one language. It holds texts, not files: @metadata and white
// space are gone.
type Fragment struct {
	language string
	keys     *keyTable
	sections []messageSection
	// The messages of all sections: number of the key, and the end of the value in text.
	numbers   []uint32
	ends      []uint32
	text      []byte
	names     int // bytes of keys
	aliases   []*aliasSection
	component bool

	digestOnce sync.Once
	digest     [32]byte
	records    [formats]struct {
		first atomic.Uint64 // the output that asked first
		once  sync.Once
		*records
	}
}

// messageSection is the messages from one to another index, under a key of MessagesDirs.
type messageSection struct {
	key      string
	from, to int
}

// aliasSection is specialPageAliases under a key of TranslationAliasesDirs, an array for each file.
type aliasSection struct {
	key    string
	values []*php.Array
}

// records are a fragment's messages as a format has them, one behind the other: message i is data[offsets[i]:offsets[i+1]].
type records struct {
	data    []byte
	offsets []uint32
}

// Fragment reads the files of one component in one language. A file that MediaWiki would refuse, or read with a warning, is an
// error that begins with its name.
func (c *Compiler) Fragment(language string, in FragmentInput) (*Fragment, error) {
	f := &Fragment{language: language, keys: c.keys, component: in.Component}
	draft := drafts.Get().(*draft)
	defer drafts.Put(draft)
	f.numbers, f.ends, f.text = draft.numbers[:0], draft.ends[:0], draft.text[:0]
	for _, s := range in.Messages {
		from := len(f.numbers)
		for i, file := range s.Files {
			messages, err := draft.reader.Read(file.Name, file.Data)
			if err != nil {
				return nil, err
			}
			f.add(messages, from, i > 0)
			if len(f.text) > math.MaxInt32 {
				return nil, fmt.Errorf("%s: %d bytes of messages are too many", file.Name, len(f.text))
			}
			for i := range messages {
				f.names += len(messages[i].Key)
			}
		}
		f.sections = append(f.sections, messageSection{s.Key, from, len(f.numbers)})
	}
	draft.numbers, draft.ends, draft.text = f.numbers, f.ends, f.text
	f.numbers, f.ends, f.text = slices.Clone(f.numbers), slices.Clone(f.ends), slices.Clone(f.text)
	for _, s := range in.Aliases {
		section := &aliasSection{key: s.Key}
		for _, file := range s.Files {
			values, err := readAliases(file)
			if err != nil {
				return nil, err
			}
			section.values = append(section.values, values...)
		}
		f.aliases = append(f.aliases, section)
	}
	return f, nil
}

// A draft is memory that fragments are read in, one after the other.
type draft struct {
	reader  message.Reader
	numbers []uint32
	ends    []uint32
	text    []byte
}

var drafts = sync.Pool{New: func() any { return &draft{} }}

// add adds the messages of a file to the section that begins at from; with unite, it may have some of their keys already.
func (f *Fragment) add(messages []message.Message, from int, unite bool) {
	start := len(f.numbers)
	f.numbers = f.keys.appendNumbers(f.numbers, messages)
	if unite && start > from {
		seen := make(map[uint32]bool, start-from)
		for _, n := range f.numbers[from:start] {
			seen[n] = true
		}
		kept := start
		for i, n := range f.numbers[start:] {
			if !seen[n] {
				f.numbers[kept] = n
				kept++
				f.text = append(f.text, messages[i].Value...)
				f.ends = append(f.ends, uint32(len(f.text)))
			}
		}
		f.numbers = f.numbers[:kept]
		return
	}
	for i := range messages {
		f.text = append(f.text, messages[i].Value...)
		f.ends = append(f.ends, uint32(len(f.text)))
	}
}

// readAliases reads a file of TranslationAliasesDirs as LocalisationCache does: an object of SpecialPageAliases.
func readAliases(file Source) ([]*php.Array, error) {
	v, err := message.ReadValue(file.Name, file.Data)
	if err != nil {
		return nil, err
	}
	all, ok := v.(*php.Array)
	if !ok {
		return nil, fmt.Errorf("%s: a file of aliases is an object; wrap this in { }", file.Name)
	}
	var values []*php.Array
	for k, v := range all.All() {
		name := k.String()
		if name == "" || name[0] == '@' {
			continue
		}
		if name != "SpecialPageAliases" && name != "specialPageAliases" {
			return nil, fmt.Errorf("%s: key %q is not known to MediaWiki; aliases are under SpecialPageAliases", file.Name, name)
		}
		if v == nil {
			continue
		}
		a, ok := v.(*php.Array)
		if !ok {
			return nil, fmt.Errorf("%s: %s: want an object of lists", file.Name, name)
		}
		values = append(values, a)
	}
	return values, nil
}

// value returns the text of message i.
func (f *Fragment) value(i int) []byte {
	from := uint32(0)
	if i > 0 {
		from = f.ends[i-1]
	}
	return f.text[from:f.ends[i]]
}

// Digest is of what the fragment says: sections, keys, texts and aliases, in their order. The language, the files' names and how
// the messages are spread over a section's files are left out.
func (f *Fragment) Digest() [32]byte {
	f.digestOnce.Do(func() {
		keys, _, _ := f.keys.all()
		w := digesters.Get().(*digester)
		defer digesters.Put(w)
		w.count(len(f.sections))
		for _, s := range f.sections {
			w.text(s.key)
			w.count(s.to - s.from)
			for i := s.from; i < s.to; i++ {
				w.text(keys[f.numbers[i]].key)
				w.bytes(f.value(i))
			}
		}
		w.count(len(f.aliases))
		for _, s := range f.aliases {
			w.text(s.key)
			w.count(len(s.values))
			for _, v := range s.values {
				w.value(v)
			}
		}
		f.digest = w.sum()
	})
	return f.digest
}

// Size is roughly how many bytes of memory the fragment holds once it is rendered for one format.
func (f *Fragment) Size() int {
	const rest = 40 // quotes, prefixes, numbers
	return 256 + 2*len(f.text) + f.names + len(f.numbers)*(rest+len(f.language))
}

// recordsFor returns the messages as format has them, and nothing to the first output that asks: most fragments are in one
// output alone, which had better write them itself.
func (f *Fragment) recordsFor(format Format, output uint64) *records {
	if first := &f.records[format].first; first.CompareAndSwap(0, output) || first.Load() == output {
		return nil
	}
	return f.render(format)
}

// render returns the messages as format has them.
func (f *Fragment) render(format Format) *records {
	r := &f.records[format]
	r.once.Do(func() {
		keys, _, _ := f.keys.all()
		n := len(f.numbers)
		size := len(f.text) + n*(len(f.language)+6)
		for _, k := range f.numbers {
			size += len(keys[k].line)
		}
		if format == CDB {
			size += n * 4
		}
		out := &records{data: make([]byte, 0, size), offsets: make([]uint32, n+1)}
		for i := range n {
			out.offsets[i] = uint32(len(out.data))
			out.data = appendMessage(out.data, format, &keys[f.numbers[i]], f.language, f.value(i))
		}
		out.offsets[n] = uint32(len(out.data))
		r.records = out
	})
	return r.records
}

// appendMessage writes one message as a format has it, its text prefixed with the language that it comes from.
func appendMessage(dst []byte, format Format, key *keyInfo, language string, text []byte) []byte {
	if format != CDB {
		if format == StaticArray {
			dst = append(dst, key.line...)
		} else {
			dst = append(dst, "\t\t"...)
			dst = append(dst, key.export...)
			dst = append(dst, " => "...)
		}
		dst = append(dst, '\'')
		dst = append(dst, language...)
		dst = append(dst, ':')
		dst = php.AppendEscaped(dst, unsafe.String(unsafe.SliceData(text), len(text))) // which is not kept
		return append(dst, "',\n"...)
	}
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = append(dst, messagePrefix...)
	dst = append(dst, key.key...)
	dst = append(dst, "s:"...)
	dst = strconv.AppendInt(dst, int64(len(language)+1+len(text)), 10)
	dst = append(dst, `:"`...)
	dst = append(dst, language...)
	dst = append(dst, ':')
	dst = append(dst, text...)
	dst = append(dst, `";`...)
	return endRecord(dst, start, len(messagePrefix)+len(key.key))
}

// A digester writes fields with their lengths.
type digester struct {
	h   hash.Hash
	buf []byte
}

func (d *digester) count(n int) { d.buf = binary.AppendUvarint(d.buf, uint64(n)); d.flush(4096) }

func (d *digester) text(s string) {
	d.count(len(s))
	d.buf = append(d.buf, s...)
	d.flush(4096)
}

func (d *digester) bytes(b []byte) {
	d.count(len(b))
	d.buf = append(d.buf, b...)
	d.flush(4096)
}

// value writes v, which serialize tells apart from any other.
func (d *digester) value(v php.Value) { d.bytes(php.AppendSerialize(nil, v)) }

func (d *digester) flush(above int) {
	if len(d.buf) > above {
		d.h.Write(d.buf)
		d.buf = d.buf[:0]
	}
}

// sum returns the digest, and begins anew.
func (d *digester) sum() [32]byte {
	d.flush(0)
	defer d.h.Reset()
	return [32]byte(d.h.Sum(nil))
}

var digesters = sync.Pool{New: func() any { return &digester{h: sha256.New()} }}
