package channel

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
)

func (v *Verdict) refuse(r Refusal) {
	if len(v.Refusals) == MaxRefusals {
		v.More++
		return
	}
	v.Refusals = append(v.Refusals, r)
}

func (v *Verdict) find(f Finding) {
	if len(v.Findings) < MaxFindings {
		v.Findings = append(v.Findings, f)
	} else {
		v.MoreFindings++
	}
}

// conclude decides who was allowed to sign what, parents first, and makes the report.
func (a *authenticator) conclude(r *git.Reader, v *Verdict, intro, end *node) error {
	for _, f := range intro.notes {
		v.find(f)
	}
	switch {
	case end.before:
		// Guix: nothing to authenticate, success.
		v.find(Finding{Code: FindingNotIntroduced, Commit: end.id, Detail: "an ancestor of the introduction: nothing is proven about it"})
		v.finish(a, nil)
		return nil
	case end.intro:
		v.finish(a, nil)
		return nil
	}
	var order []*node
	a.g.reach(end, func(n *node) {
		for _, p := range n.parents {
			n.descends = n.descends || p.intro || p.descends
		}
		order = append(order, n)
	})
	if !end.descends {
		v.refuse(Refusal{Code: CodeNotDescendant, Commit: end.id, Author: end.author, Rule: "the end must be a descendant of the introduction",
			Detail: fmt.Sprintf("it is not a descendant of the introductory commit %s", a.req.Introduction)})
		for _, n := range order {
			if n.refusal != nil && strings.HasPrefix(n.refusal.Code, "object-") {
				v.refuse(*n.refusal) // why it may not seem to be one
			}
		}
		return nil
	}
	signers := make(map[openpgp.Fingerprint]int)
	for _, n := range order {
		v.Commits++
		if !n.proven {
			v.Judged++
			if n.refusal == nil {
				refusal, err := a.allowed(r, n)
				if err != nil {
					return err
				}
				n.refusal = refusal
			} else if n.refusal.File == "" && len(n.parents) > 0 {
				n.refusal.File = n.parents[0].id.String() + ":" + authorizationsFile
			}
			if n.refusal != nil {
				if n.author == "" {
					if err := a.name(r, n); err != nil {
						return err
					}
					n.refusal.Author = n.author
				}
				v.refuse(*n.refusal)
				continue
			}
			if !n.descends {
				n.notes = append(n.notes, Finding{Code: FindingBesideOriginal, Commit: n.id, Key: n.signer.String(), Detail: "it does not descend from the introduction", When: n.when})
			}
			removed, err := a.removes(r, n)
			if err != nil {
				return err
			}
			if removed {
				n.notes = append(n.notes, Finding{Code: FindingRemoval, Commit: n.id, Key: n.signer.String(), Detail: "it removes " + authorizationsFile, When: n.when})
			}
			for i := range n.notes {
				if n.notes[i].Author == "" {
					if err := a.name(r, n); err != nil {
						return err
					}
					n.notes[i].Author = n.author
				}
			}
		}
		signers[*n.signer]++
		for _, f := range n.notes {
			v.find(f)
		}
	}
	for k, c := range signers {
		v.Signers = append(v.Signers, Count{k, c})
	}
	slices.SortFunc(v.Signers, func(x, y Count) int {
		return cmp.Or(cmp.Compare(y.Commits, x.Commits), slices.Compare(x.Key[:], y.Key[:]))
	})
	v.finish(a, order)
	return nil
}

func (v *Verdict) finish(a *authenticator, order []*node) {
	sortFindings(v.Findings)
	if v.OK() && v.MoreFindings == 0 {
		v.proven = a.prove(order)
	}
}

// name reads who wrote a commit.
func (a *authenticator) name(r *git.Reader, n *node) error {
	if n.author != "" {
		return nil
	}
	raw, err := r.Read(n.id, git.KindCommit)
	if err == nil {
		var c *git.Commit
		if c, err = git.ParseCommit(raw); err == nil {
			n.author = author(c)
			return nil
		}
	}
	_, err = objectRefusal(n.id, err)
	return err
}

// allowed checks that the signer of n stands in the lists of all its parents.
func (a *authenticator) allowed(r *git.Reader, n *node) (*Refusal, error) {
	const rule = "the key must stand in " + authorizationsFile + " of every parent"
	key := *n.signer
	refusal := func(code, rule, file, format string, args ...any) *Refusal {
		return &Refusal{Code: code, Commit: n.id, Author: n.author, Key: key.String(), Rule: rule, File: file, Detail: fmt.Sprintf(format, args...)}
	}
	historical := func(why string) *Refusal {
		if slices.Contains(a.req.Historical, key) {
			return nil
		}
		return refusal(CodeUnauthorized, "a commit whose parents have no "+authorizationsFile+" needs a historical authorization", "historical authorizations",
			"not signed by an authorized key: %s (%s)", key, why)
	}
	if len(n.parents) == 0 {
		return historical("it has no parent"), nil
	}
	var missing *Refusal // said last: what is wrong with a list weighs more
	for _, p := range n.parents {
		file := p.id.String() + ":" + authorizationsFile
		if err := a.ensure(r, p); err != nil {
			return nil, err
		}
		if p.fault != nil {
			broken, err := objectRefusal(n.id, p.fault)
			if err != nil {
				return nil, err
			}
			broken.Key, broken.File, broken.Detail = key.String(), file, "its parent's tree: "+broken.Detail
			return broken, nil
		}
		switch p.auth {
		case authOther:
			return refusal(CodeAuthorizations, authorizationsFile+" must be a file", file, "%s is no file in its parent %s", authorizationsFile, p.id), nil
		case authAbsent:
			removed, err := a.removes(r, p)
			if err != nil {
				return nil, err
			}
			if removed {
				return refusal(CodeRemoved, authorizationsFile+" must not be removed", file, "its parent %s removes %s", p.id, authorizationsFile), nil
			}
			if h := historical("its parent " + p.id.Short() + " has no " + authorizationsFile); h != nil && missing == nil {
				missing = h
			}
			continue
		}
		l, err := a.list(r, p.blob)
		if err != nil {
			return nil, err
		}
		if l.err != nil {
			broken, err := objectRefusal(n.id, l.err)
			if err != nil {
				return refusal(CodeAuthorizations, authorizationsFile+" must be of version 0 and well formed", file, "%s of its parent %s: %s", authorizationsFile, p.id, Escape(l.err.Error())), nil
			}
			broken.Key, broken.File, broken.Author = key.String(), file, n.author
			broken.Detail = authorizationsFile + " of its parent: " + broken.Detail
			return broken, nil
		}
		if !l.keys[key] && missing == nil {
			missing = refusal(CodeUnauthorized, rule, file, "not signed by an authorized key: %s", key)
		}
	}
	return missing, nil
}

// removes reports whether n lacks the list that one of its parents has.
func (a *authenticator) removes(r *git.Reader, n *node) (bool, error) {
	if err := a.ensure(r, n); err != nil || n.fault != nil || n.auth != authAbsent {
		return false, err
	}
	for _, p := range n.parents {
		if err := a.ensure(r, p); err != nil {
			return false, err
		}
		// What cannot be read may have one.
		if p.fault != nil || p.auth != authAbsent {
			return true, nil
		}
	}
	return false, nil
}

// ensure reads what is not yet known of a commit that was not judged in this run.
func (a *authenticator) ensure(r *git.Reader, n *node) error {
	if n.loaded {
		return nil
	}
	raw, err := r.Read(n.id, git.KindCommit)
	var c *git.Commit
	if err == nil {
		c, err = git.ParseCommit(raw)
	}
	if err != nil {
		n.loaded = true
		n.fault = err
		_, err = objectRefusal(n.id, err)
		return err
	}
	if n.parents == nil && n.before {
		n.parents = make([]*node, len(c.Parents))
	}
	if len(n.parents) != len(c.Parents) {
		return fmt.Errorf("channel: the proof does not have the parents of %s", n.id)
	}
	for i, id := range c.Parents {
		if p := n.parents[i]; p != nil && p != a.beside {
			continue
		}
		p := a.g.nodes[id]
		if p == nil {
			p = &node{id: id, before: true}
			a.g.nodes[id] = p
		}
		n.parents[i] = p
	}
	a.load(r, n, c.Tree)
	if n.fault != nil {
		_, err = objectRefusal(n.id, n.fault)
		return err
	}
	return nil
}

// list reads a .guix-authorizations. The error is about reading; what is wrong with the list is in the list.
func (a *authenticator) list(r *git.Reader, blob git.ID) (list, error) {
	if l, ok := a.lists[blob]; ok {
		return l, nil
	}
	var l list
	raw, err := r.Read(blob, git.KindBlob)
	switch {
	case err != nil:
		if _, err := objectRefusal(blob, err); err != nil {
			return l, err
		}
		l.err = err
	case len(raw) > MaxAuthorizations:
		l.err = fmt.Errorf("%d bytes, at most %d are read", len(raw), MaxAuthorizations)
	default:
		all, err := scheme.ParseAuthorizations(raw)
		l.err = err
		l.keys = make(map[openpgp.Fingerprint]bool, len(all))
		for _, k := range all {
			l.keys[openpgp.Fingerprint(k.Key)] = true
		}
	}
	a.lists[blob] = l
	return l, nil
}

// date prints seconds since 1970.
func date(seconds int64) string { return time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04:05 UTC") }
