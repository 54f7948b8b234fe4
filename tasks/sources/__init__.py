"""The places that photos come from: archives, folders, TFDS, and a generator that draws them.

A source is a stream of entries (`tasks.sources.layout.Entry`), in a fixed order; the layout says which of them are
candidates and gives each its label and predefined split.
"""
