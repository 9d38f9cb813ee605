"""Generators: the built-in families as staged networks, and a user's own objects.

To add a family, write one module with a subclass of `staged.StagedNetwork` (`residual` is the
shortest example) and add its line to `families.FAMILIES`. Everything else reads the network through
`StagedNetwork`. To load published checkpoints of it, `converters/` needs a converter too.

* The protocol: `base` (the protocol, and `PretrainedGenerator`), `conditioned` (a generator with
  its keywords fixed: what a run works with), `batching`, `labelled`.
* The families: `dcgan`, `pgan`, `stylegan`, `stylegan2`, `stylegan3`, `biggan`, `biggan_pytorch`,
  `residual`; what several of them share is in `staged`, `dense_first`, `style`, `conditions` and
  the arithmetic in `layers`, `resampling`, `fast_convolutions`.
* Loading: `registry` (name -> generator), `published` (the known checkpoints), `download`,
  `weights` (the folder format), `architecture` (its keywords), `folders` (all-or-nothing writes).
* A user's own generator: `foreign` checks every call, `contract` checks behaviour before a run,
  `arrays` converts what it returns; `torch_module` wraps a PyTorch module (`torch_tensors`).
"""
