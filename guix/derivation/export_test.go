package derivation

// Masked returns the hash that goes into output paths; vectors state it.
func (h *Hasher) Masked(d *Derivation) ([32]byte, error) {
	if err := h.resolveAll("", d); err != nil {
		return [32]byte{}, err
	}
	return h.sum(&h.sheet, "", d, true)
}
