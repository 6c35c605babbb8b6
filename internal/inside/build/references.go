package build

import (
	"fmt"
	"slices"
	"strings"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// A rule is one of the four attributes that say what outputs may refer to.
type rule struct {
	attribute  string
	allow      bool // only what is listed, otherwise nothing that is listed
	requisites bool // about the closure, not the references alone
	listed     map[storepath.Path]bool
}

// rules reads the attributes, in the order in which the daemon looks at them. A word is a store path or the ID of an output.
func (job *Job) rules(outputs []output) ([]rule, error) {
	var rules []rule
	for _, r := range []rule{
		{attribute: "allowedReferences", allow: true},
		{attribute: "allowedRequisites", allow: true, requisites: true},
		{attribute: "disallowedReferences"},
		{attribute: "disallowedRequisites", requisites: true},
	} {
		value, ok := job.Derivation.Lookup(r.attribute)
		if !ok {
			continue
		}
		r.listed = make(map[storepath.Path]bool)
		for _, word := range words(value) {
			if p, err := storepath.Parse(word); err == nil {
				r.listed[p] = true
				continue
			}
			i := slices.IndexFunc(outputs, func(o output) bool { return o.ID == word })
			if i < 0 {
				return nil, job.failure(CodeAttribute, "%s: %q is neither a store path nor an output", r.attribute, word)
			}
			r.listed[outputs[i].path] = true
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// judgeReferences checks the outputs against the rules, and that they do not refer to one another in a circle.
func (job *Job) judgeReferences(made []Output, rules []rule, refusals *trust.Refusals) error {
	known := make(map[storepath.Path][]storepath.Path, len(made))
	for _, m := range made {
		known[m.Path] = m.References
	}
	for _, m := range made {
		for _, r := range rules {
			used := m.References
			if r.requisites {
				// The closure begins with what it refers to besides itself; itself belongs to it only by way of another.
				others := slices.DeleteFunc(slices.Clone(m.References), func(p storepath.Path) bool { return p == m.Path })
				graph, err := job.closure(others, known)
				if err != nil {
					return err
				}
				used = graph.paths
			}
			for _, p := range used {
				if r.allow && !r.listed[p] {
					refusals.Add(trust.Refuse(CodeNotAllowed, m.Path.String(), "%s does not allow %s", r.attribute, p))
				}
				if !r.allow && r.listed[p] {
					refusals.Add(trust.Refuse(CodeDisallowed, m.Path.String(), "%s forbids %s", r.attribute, p))
				}
			}
		}
	}
	for _, m := range made {
		if cycle := findCycle(m.Path, known); cycle != nil && slices.MinFunc(cycle, storepath.Path.Compare) == m.Path {
			texts := make([]string, len(cycle))
			for i, p := range cycle {
				texts[i] = p.String()
			}
			refusals.Add(trust.Refuse(CodeCycle, m.Path.String(), "outputs refer to one another: %s", strings.Join(texts, " -> ")))
		}
	}
	return nil
}

// findCycle returns a way from start back to start through other outputs, nil if there is none.
func findCycle(start storepath.Path, known map[storepath.Path][]storepath.Path) []storepath.Path {
	from := map[storepath.Path]storepath.Path{}
	queue := []storepath.Path{start}
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		for _, next := range known[p] {
			if next == p {
				continue
			}
			if next == start {
				way := []storepath.Path{p}
				for p != start {
					p = from[p]
					way = append(way, p)
				}
				slices.Reverse(way)
				return way
			}
			if _, isOutput := known[next]; !isOutput {
				continue
			}
			if _, visited := from[next]; !visited {
				from[next] = p
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// A graph is a closure: its paths, sorted, with the references of each, sorted.
type graph struct {
	paths      []storepath.Path
	references map[storepath.Path][]storepath.Path
}

// closure walks from start. References of outputs are in known, those of inputs come from the job.
func (job *Job) closure(start []storepath.Path, known map[storepath.Path][]storepath.Path) (*graph, error) {
	g := &graph{references: make(map[storepath.Path][]storepath.Path)}
	stack := slices.Clone(start)
	for len(stack) > 0 {
		p := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if _, done := g.references[p]; done {
			continue
		}
		refs, ok := known[p]
		if !ok {
			if _, isInput := slices.BinarySearchFunc(job.Inputs, p, storepath.Path.Compare); !isInput {
				return nil, job.failure(CodeAttribute, "%s is not in the closure of the inputs", p)
			}
			if job.References == nil {
				return nil, fmt.Errorf("build: %s asks for a closure, and the job has no References", job.Path)
			}
			var err error
			if refs, err = job.References(p); err != nil {
				return nil, fmt.Errorf("references of %s: %w", p, err)
			}
			refs = slices.Clone(refs)
			slices.SortFunc(refs, storepath.Path.Compare)
			refs = slices.Compact(refs)
		}
		g.references[p] = refs
		g.paths = append(g.paths, p)
		stack = append(stack, refs...)
	}
	slices.SortFunc(g.paths, storepath.Path.Compare)
	return g, nil
}
