"""Generators that learn clusters while they train, and what they are compared with."""
