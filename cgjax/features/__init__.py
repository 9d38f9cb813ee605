"""Where a layer's features come from: in memory, from a file, or computed when they are read."""
