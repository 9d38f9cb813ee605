"""The published networks written out in torch, to compare with."""
