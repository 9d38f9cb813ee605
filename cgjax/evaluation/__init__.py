"""How good a sampler or a clustering is: distances, judges, agreement."""
