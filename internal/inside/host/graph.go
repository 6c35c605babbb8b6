package host

import (
	"maps"
	"slices"
)

// reach says from where each item is reached, and by which way.
type reach struct {
	from []int32 // the item above it on the shortest way; -1: it is a root's own item; -2: it is not reached
	root []int32 // the root's place in the list of roots
}

// reached finds all that the roots keep: nearest first, so that the ways are the shortest.
func reached(rows *rows, roots []Root, at []int32) reach {
	r := reach{from: make([]int32, len(rows.all)), root: make([]int32, len(rows.all))}
	for i := range r.from {
		r.from[i] = -2
	}
	var queue []int32
	for k := range roots {
		if i := at[k]; i >= 0 && r.from[i] == -2 {
			r.from[i], r.root[i] = -1, int32(k)
			queue = append(queue, i)
		}
	}
	for n := 0; n < len(queue); n++ {
		i := queue[n]
		for _, ref := range rows.all[i].refs {
			if r.from[ref] == -2 {
				r.from[ref], r.root[ref] = i, r.root[i]
				queue = append(queue, ref)
			}
		}
	}
	return r
}

func (r reach) reached(i int32) bool { return r.from[i] != -2 }

// chain is the way from the root's own item to i, both included.
func (r reach) chain(rows *rows, i int32) []string {
	var list []string
	for i >= 0 {
		list = append(list, rows.all[i].name)
		i = r.from[i]
	}
	slices.Reverse(list)
	return list
}

// towards says, for every item, which is the next on its shortest way to one of a set: itself for those of the set, -1 where there is no way.
func towards(rows *rows, in func(i int32) bool) []int32 {
	above := make([][]int32, len(rows.all))
	for i := range rows.all {
		for _, ref := range rows.all[i].refs {
			above[ref] = append(above[ref], int32(i))
		}
	}
	next := make([]int32, len(rows.all))
	var queue []int32
	for i := range next {
		next[i] = -1
		if in(int32(i)) {
			next[i] = int32(i)
			queue = append(queue, int32(i))
		}
	}
	for n := 0; n < len(queue); n++ {
		for _, up := range above[queue[n]] {
			if next[up] < 0 {
				next[up] = queue[n]
				queue = append(queue, up)
			}
		}
	}
	return next
}

// follow is the way from i by next, both ends included.
func follow(rows *rows, next []int32, i int32) []string {
	list := []string{rows.all[i].name}
	for next[i] != i {
		i = next[i]
		list = append(list, rows.all[i].name)
	}
	return list
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
