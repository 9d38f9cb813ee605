"""The schema of configs, and how configs are stored."""
