"""A layer's features: held in memory, kept in a file, or recomputed whenever they are read.

`in_memory` computes all of them at once, `stream` gives k-means the rows it asks for and keeps them
in a `file.FeatureFile` or recomputes them, and `spaces` maps them before they are clustered.
"""
