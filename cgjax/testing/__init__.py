"""Small generators and data for tests, ours and our users'."""
