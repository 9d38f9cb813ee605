"""k-means: all restarts in one product per read of the data; in memory, streamed, over devices."""
