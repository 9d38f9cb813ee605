"""The networks of every experiment, in one table by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cgjax.endtoend.networks.base import Architecture
from cgjax.endtoend.networks.dcgan import Dcgan
from cgjax.endtoend.networks.encoding import Encoding, EncodingDcgan
from cgjax.endtoend.networks.planar import Planar
from cgjax.endtoend.networks.residual import Residual
from cgjax.endtoend.networks.sngan import Sngan

Settings = Mapping[str, Any]

DCGAN = ("latent_dim", "embedding_dim", "width")
PLANAR = ("latent_dim", "embedding_dim", "width", "critic_width")

NETWORKS: dict[str, Callable[[Settings, tuple[int, ...]], Architecture]] = {
    "planar": lambda sizes, shape: Planar(**{name: sizes[name] for name in PLANAR}),
    "planar_plain": lambda sizes, shape: Planar(
        **{name: sizes[name] for name in PLANAR}, normed=False
    ),
    "planar_modulated": lambda sizes, shape: Planar(
        **{name: sizes[name] for name in (*PLANAR, "modulation")}, normed=False
    ),
    "encoding": lambda sizes, shape: Encoding(shape, sizes["latent_dim"], sizes["width"]),
    "dcgan": lambda sizes, shape: Dcgan(shape, **{name: sizes[name] for name in DCGAN}),
    "dcgan_flat": lambda sizes, shape: Dcgan(
        shape, **{name: sizes[name] for name in DCGAN}, flat=True
    ),
    "sngan": lambda sizes, shape: Sngan(shape, **{name: sizes[name] for name in DCGAN}),
    "residual": lambda sizes, shape: Residual(shape, **{name: sizes[name] for name in DCGAN}),
    "encoding_dcgan": lambda sizes, shape: EncodingDcgan(
        shape, **{name: sizes[name] for name in DCGAN}
    ),
}
"""Architectures by name; each entry takes `config.network` and the shape of a row. Adding an
architecture takes a file and a line here."""

__all__ = ["NETWORKS", "Architecture", "Encoding", "Planar"]
