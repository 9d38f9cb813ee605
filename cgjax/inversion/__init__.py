"""Images in, latents out: an encoder, the search that it starts, and how sure the result is."""
