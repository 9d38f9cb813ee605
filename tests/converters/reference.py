"""The reference networks of `converters.reference` by name, and random state dicts for them."""

from __future__ import annotations

import torch

from converters.reference.biggan import biggan as biggan
from converters.reference.biggan import biggan_pytorch as biggan_pytorch
from converters.reference.dcgan import dcgan as dcgan
from converters.reference.pgan import pgan_zoo as pgan_zoo
from converters.reference.pgan import pggan_genforce as pggan_genforce
from converters.reference.pgan import pggan_netdissect as pggan_netdissect
from converters.reference.residual import residual as residual
from converters.reference.stylegan import stylegan_genforce as stylegan_genforce
from converters.reference.stylegan import stylegan_zoo as stylegan_zoo
from converters.reference.stylegan2 import TAPS as TAPS
from converters.reference.stylegan2 import stylegan2_genforce as stylegan2_genforce
from converters.reference.stylegan2 import stylegan2_nvidia as stylegan2_nvidia
from converters.reference.stylegan2 import stylegan2_rosinality as stylegan2_rosinality


class Weights(dict):
    """A state dict to which random tensors of given shapes are added."""

    def __init__(self, seed=0):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, name, *shape, std=1.0, mean=0.0):
        self[name] = mean + std * torch.randn(shape, generator=self.generator)
