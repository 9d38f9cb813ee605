"""The published networks in torch, to compare with: `--verify` and the tests run them.

They are written from the formats and share no code with the library. Each function takes a state
dict under its file's own names and a batch of latents, and returns the activations by layer name
(NCHW), with the image under "image".
"""
