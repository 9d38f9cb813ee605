"""Generators that learn clusters while they train, and the methods they are compared with."""
