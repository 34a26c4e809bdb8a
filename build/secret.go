package build

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/crypto/scrypt"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/spell"
)

// secretDigest identifies the value of a secret in a key. Keys are kept and may leave the machine, and a secret may be a
// word that can be guessed, so guessing is made slow: scrypt (RFC 7914) with 32 MB, some 0.1 s a try.
func (b *Builder) secretDigest(id string) (string, error) {
	v, ok := b.Secrets[id]
	if !ok {
		return "", fmt.Errorf("the digest of the secret %q is part of a key, and the secret was not given\n    %s", id, giveSecret(id))
	}
	b.secretMu.Lock()
	defer b.secretMu.Unlock()
	if sum, ok := b.secretSums[id]; ok {
		return sum, nil
	}
	sum, err := scrypt.Key(v, []byte("mwbuild secret "+id), 1<<15, 8, 1, 32)
	if err != nil {
		return "", err
	}
	if b.secretSums == nil {
		b.secretSums = map[string]string{}
	}
	b.secretSums[id] = hex.EncodeToString(sum)
	return b.secretSums[id], nil
}

func giveSecret(id string) string {
	return fmt.Sprintf("add --secret id=%s,src=FILE or --secret id=%s,env=VARIABLE", id, id)
}

// checkGiven tells whether everything that a step asks of whoever builds was handed in.
func (b *Builder) checkGiven(n *action.Node, do *action.Run) error {
	fail := func(msg, hint string) error {
		return &graph.Error{Pos: n.Pos, Label: n.Label, Msg: msg, Hints: []string{hint}}
	}
	for _, s := range do.Secrets {
		if _, ok := b.Secrets[s.ID]; !ok {
			hint := giveSecret(s.ID)
			if near := spell.Nearest(s.ID, slices.Sorted(maps.Keys(b.Secrets))); near != "" {
				hint += fmt.Sprintf("; --secret gives %q", near)
			}
			return fail(fmt.Sprintf("the command needs the secret %q, which was not given", s.ID), hint)
		}
	}
	for _, id := range do.SSH {
		if _, ok := b.SSH[id]; !ok {
			return fail(fmt.Sprintf("the command needs the ssh agent %q, which was not given", id), fmt.Sprintf("add --ssh %s, or --ssh %s=KEYFILE", id, id))
		}
	}
	return nil
}

// given returns the part of what was handed in that the step asks for.
func (b *Builder) given(do *action.Run) (secrets map[string][]byte, ssh map[string][]string) {
	secrets, ssh = map[string][]byte{}, map[string][]string{}
	for _, s := range do.Secrets {
		secrets[s.ID] = b.Secrets[s.ID]
	}
	for _, id := range do.SSH {
		ssh[id] = b.SSH[id]
	}
	return secrets, ssh
}

// keyedSecrets is the environment variable that tells an engine's own cache values of secrets apart.
const keyedSecrets = "MWBUILD_SECRETS"

// withSecretDigests returns the step with the digests that are part of its key in its environment, where an engine sees
// them too: it knows a secret by its id alone, and would hand back what the step made with another value.
func (b *Builder) withSecretDigests(do *action.Run) (*action.Run, error) {
	var sums string
	for _, s := range do.Secrets {
		if s.Keyed {
			sum, err := b.secretDigest(s.ID)
			if err != nil {
				return nil, err
			}
			sums += sum[:16]
		}
	}
	if sums == "" {
		return do, nil
	}
	c := *do
	c.Env = maps.Clone(do.Env)
	if c.Env == nil {
		c.Env = map[string]string{}
	}
	c.Env[keyedSecrets] = sums
	return &c, nil
}
