"""The parts of a generator's latent space: clusterings, margin ranges, names."""
