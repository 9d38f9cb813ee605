"""Distance kernels: nearest rows, exact and in blocks."""
