"""Converts published checkpoints to folders of weights: see `python -m converters --help`.

The only package that needs torch; nothing in `cgjax/` imports from here.
"""
