"""Regions of a generator's latent space: clusterings, margin ranges, queries, names."""
