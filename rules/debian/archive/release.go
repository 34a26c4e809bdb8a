package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

// A Release is what a signed InRelease file says.
type Release struct {
	Suite, Codename string
	Date            time.Time
	ValidUntil      time.Time // zero where it has no end
	ByHash          bool      // Acquire-By-Hash: lists can be had by their digest
	Files           map[string]ReleaseFile
}

// A ReleaseFile is a list of packages that a release names, by a path below the release.
type ReleaseFile struct {
	SHA256 string
	Size   int64
}

// ErrExpired is that of a release that was to be replaced by now.
var ErrExpired = errors.New("it has expired")

// ReadKeyring reads the public keys of files, armoured or not.
func ReadKeyring(files ...string) (openpgp.EntityList, error) {
	var all openpgp.EntityList
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		read := openpgp.ReadKeyRing
		if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN PGP")) {
			read = openpgp.ReadArmoredKeyRing
		}
		keys, err := read(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, keys...)
	}
	return all, nil
}

// ParseRelease checks who signed an InRelease file, and reads what is signed of it, and nothing else. One signature by a key
// of keys is enough, at the time now. Where the release has expired by then, the error is [ErrExpired].
func ParseRelease(inRelease []byte, keys openpgp.EntityList, now time.Time) (*Release, error) {
	block, rest := clearsign.Decode(inRelease)
	if block == nil {
		return nil, errors.New("it is not signed")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("something follows the signature")
	}
	if err := verify(block, keys); err != nil {
		return nil, err
	}
	r := &Release{Files: map[string]ReleaseFile{}}
	n := 0
	err := ReadControl(bytes.NewReader(block.Plaintext), func(s Stanza) error {
		if n++; n > 1 {
			return errors.New("it has more than one paragraph")
		}
		return r.read(s)
	})
	if err != nil {
		return nil, err
	}
	if n == 0 || r.Date.IsZero() || len(r.Files) == 0 {
		return nil, errors.New("it has no date or no list of SHA256 digests")
	}
	if !r.ValidUntil.IsZero() && now.After(r.ValidUntil) {
		return nil, fmt.Errorf("%w: it was valid until %s", ErrExpired, r.ValidUntil.Format(time.RFC1123))
	}
	return r, nil
}

// verify wants one good signature of several: an archive signs with an old and a new key at the same time.
func verify(block *clearsign.Block, keys openpgp.EntityList) error {
	signatures, err := io.ReadAll(block.ArmoredSignature.Body)
	if err != nil {
		return fmt.Errorf("its signature cannot be read: %w", err)
	}
	_, err = openpgp.CheckDetachedSignature(keys, bytes.NewReader(block.Bytes), bytes.NewReader(signatures), nil)
	if err != nil {
		return fmt.Errorf("its signature is none of the keyring's: %w", err)
	}
	return nil
}

func (r *Release) read(s Stanza) error {
	r.Suite, r.Codename = s.Get("Suite"), s.Get("Codename")
	r.ByHash = s.Get("Acquire-By-Hash") == "yes"
	for name, to := range map[string]*time.Time{"Date": &r.Date, "Valid-Until": &r.ValidUntil} {
		v := s.Get(name)
		if v == "" {
			continue
		}
		t, err := time.Parse(time.RFC1123, v)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		*to = t.UTC()
	}
	for _, line := range strings.Split(s.Get("SHA256"), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 || len(f[0]) != 64 {
			return fmt.Errorf("SHA256: %.80q is no digest, size and name", line)
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || size < 0 {
			return fmt.Errorf("SHA256: %s: size %q", f[2], f[1])
		}
		r.Files[f[2]] = ReleaseFile{f[0], size}
	}
	return nil
}
