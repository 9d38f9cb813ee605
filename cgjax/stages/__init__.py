"""The stages of a run: each makes artifacts, through `maker.Maker`, when they are not current."""
