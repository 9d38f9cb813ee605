"""Arrays in, numbers out: computations that several packages share."""
