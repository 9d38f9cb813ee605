"""Arrays in, numbers out: what several packages compute alike."""
