"""
Proves which graphs may be run for several requests at once.

Row i of every output must depend on row i of every input alone. That is proven, for each signature, from its
operations, their attributes, axes and constant operands; what is not proven is not merged. `analysis` walks the graph,
`values` says what can be known of a tensor, `dims` what of a size, and the other modules hold the rules.

Two things are taken for granted: variables have the shapes that the graph declares, and a kernel computes a row of a
larger batch as it computes it in a smaller one, but for the last bits of a float.
"""
