"""Pictures of clusters, samples and comparisons."""
