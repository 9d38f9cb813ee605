"""Data that ships with the package: the embedded generator, judges' files."""
