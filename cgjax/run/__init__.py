"""A run's folder: what is in it, whether it is current, and drawing from it."""
