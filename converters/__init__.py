"""Published checkpoint files into folders of converted weights: `python -m converters --help`.

The only package that needs torch; nothing in `cgjax/` imports from here.
"""
