"""Ways to draw latents of one cluster: the published one, the exact one, and others."""
