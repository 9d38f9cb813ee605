"""`--verify=torch`: compares the file's own network in torch with the converted one, by layer.

The networks of `converters.reference` are written from the formats and share only the sizes with
the converters. A layout's entry in `REFERENCES` says how to call its network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from flax import nnx

from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.staged import StagedNetwork
from converters.biggan_pytorch import STATISTICS
from converters.conversion import Conversion
from converters.dcgan import read_chain
from converters.finding import Candidate
from converters.networks import Network
from converters.nvidia import build_record, get_rate
from converters.pgan import has_fused_kernels, renumbered
from converters.reference import biggan, dcgan, pgan, residual, stylegan, stylegan2, stylegan3
from converters.reference.common import Activations
from converters.settings import Settings
from converters.zoo import zoo_settings

LATENTS = 8
TOLERANCE = 1e-4
"""Largest max|a - b| / max(1, max|b|) at which a layer counts as equal."""


class Case(NamedTuple):
    """The inputs of a reference network.

    Attributes:
        w: the tensors by name.
        z: (n, d) latents.
        classes: (n, c) class vectors; None without classes.
        a: the architecture, for sizes.
        network: the file's network.
        given: `--set` values.
    """

    w: dict[str, torch.Tensor]
    z: torch.Tensor
    classes: torch.Tensor | None
    a: Mapping[str, Any]
    network: Network
    given: Mapping[str, str]

    def setting(self, name: str, default: Any) -> Any:
        """Return a setting that affects only the weights, so that it is not in the architecture."""
        return Settings(self.given).get(name, default)

    @property
    def resolutions(self) -> int:
        """Number of resolutions in the file."""
        return len(self.a["depths"]) + self.a.get("extra_doublings", 0)

    @property
    def lod(self) -> float:
        """The level of detail."""
        return self.a.get("extra_doublings", 0) + self.a.get("blend", 0.0)


def verify(
    generator: PretrainedGenerator,
    chosen: Candidate,
    conversion: Conversion,
    given: Mapping[str, str],
) -> dict[str, float]:
    """Compare a converted network with torch's on `LATENTS` latents.

    Args:
        generator: the converted generator.
        chosen: what it was converted from.
        conversion: its conversion.
        given: `--set` values.

    Returns:
        The worst error max|a - b| / max(1, max|b|) over the latents, by layer and for "image".

    Raises:
        UserError: there is no torch network for the layout.
    """
    key = f"{chosen.family}/{chosen.layout.name}"
    if key not in REFERENCES:
        raise UserError(f"--verify=torch: there is no torch network for {key}; leave it out")
    z = np.asarray(generator.sample_latents(jax.random.key(0), LATENTS))
    num_classes = generator.num_classes
    classes = np.eye(max(num_classes, 1), dtype=np.float32)
    classes = classes[np.arange(LATENTS) % len(classes)]
    tensors = {
        name: torch.tensor(np.asarray(value, np.float32))
        for name, value in chosen.network.state.items()
        if isinstance(name, str) and isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
    }
    errors: dict[str, float] = {}
    # One latent at a time, since all activations of a network are in memory at once.
    for row in range(LATENTS):
        rows = slice(row, row + 1)
        one = torch.tensor(classes[rows]) if num_classes else None
        latent = torch.tensor(z[rows])
        case = Case(tensors, latent, one, conversion.architecture, chosen.network, given)
        with torch.no_grad():
            theirs = REFERENCES[key](case)
        condition = {"condition": classes[rows]} if num_classes else {}
        ours = _activations(generator.network, z[rows], condition)
        for name, value in ours.items():
            error = _error(value, theirs[name].numpy())
            errors[name] = float(np.maximum(errors.get(name, 0.0), error))  # NaN stays NaN
    return errors


def report(errors: Mapping[str, float]) -> str:
    """Return a line for each layer.

    Raises:
        UserError: one is over the tolerance.
    """
    worst = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    if not errors[worst] <= TOLERANCE:
        raise UserError(
            f"--verify=torch: {worst} differs from torch by {errors[worst]:.1e}, more than "
            f"{TOLERANCE:.0e}; nothing was written: please report the file's layout"
        )
    lines = [f"verified: {name} {value:.1e}" for name, value in errors.items()]
    return "\n".join(
        [*lines, f"verified: worst {errors[worst]:.1e} ({worst}), torch, {LATENTS} latents"]
    )


def _activations(
    network: StagedNetwork, z: np.ndarray, keywords: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    graph, weights = nnx.split(network)
    arrays = _all_layers(weights, z, network.resolve(len(z), **keywords), graph)
    return {name: np.asarray(arrays[name]) for name in (*network.layers, "image")}


def _all_layers_(weights: Any, z: Any, inputs: Any, graph: Any) -> dict[str, Any]:
    with jax.default_matmul_precision("highest"):
        network = nnx.merge(graph, weights)
        state, arrays = network.begin(z, inputs), {}
        for i, layer in enumerate(network.layers):
            state = network.stage(i, state)
            arrays[layer] = state["h"]
        return {**arrays, "image": network.end(state)}


_all_layers: Callable[..., dict[str, Any]] = jax.jit(_all_layers_, static_argnums=3)


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    if theirs.ndim == 4:
        theirs = theirs.transpose(0, 2, 3, 1)
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


def _chain(case: Case) -> Activations:
    links, options = read_chain(case.network, case.given)
    z = case.z
    if case.classes is not None:
        z = torch.cat((case.classes, z) if options.classes_first else (z, case.classes), dim=1)
    stages = [(1, options.shape.first_padding, options.shape.first_extra)]
    stages += [stage[1:] for stage in options.shape.stages]
    return dcgan.dcgan(
        case.w,
        z,
        [link.name for link in links],
        [link.norm for link in links],
        tanh=options.output == "tanh",
        stages=stages,
        plain=[link.name for link in links if not link.is_transposed],
        leak=options.leak,
        eps=options.eps,
        sigmoid=options.output == "sigmoid",
    )


def _zoo_dcgan(case: Case) -> Activations:
    depth = len(case.a["widths"])
    middle = [f"main.convTranspose{i}" for i in range(1, depth)]
    norms = [f"main.batchNorm{i}" for i in range(depth)]
    names = ["formatLayer", *middle, "main.outlayer"]
    return dcgan.dcgan(case.w, case.z, names, norms, case.a["tanh"])


def _zoo_pgan(case: Case) -> Activations:
    a, settings = case.a, zoo_settings(case.network, case.given)
    equalized = settings.get("equalizedlR", True)
    return pgan.pgan_zoo(case.w, case.z, a["depths"], a["leak"], a["blend"], equalized, a["tanh"])


def _genforce_pgan(case: Case) -> Activations:
    tensors = case.network.tensors()
    widths = [tensors.shape(f"output{b}.weight", 4)[1] for b in range(case.resolutions)]
    fused = case.setting("fused_scale", has_fused_kernels(tensors, widths))
    wscale = case.setting("use_wscale", True)
    return pgan.pggan_genforce(
        case.w, case.z, case.resolutions, case.classes, fused, wscale, case.lod, case.a["tanh"]
    )


def _netdissect(case: Case) -> Activations:
    w = renumbered(case.w)
    output = next(name.split(".")[0] for name in w if name.startswith("output"))
    activations = pgan.pggan_netdissect(w, case.z, 2 * len(case.a["depths"]), output)
    if case.a["tanh"]:
        activations["image"] = torch.tanh(activations["image"])
    return activations


def _zoo_stylegan(case: Case) -> Activations:
    a = case.a
    sizes = [4 * 2**r for r in range(len(a["depths"])) for _ in (0, 1)]
    noise = [torch.zeros(1, 1, size, size) for size in sizes]
    mappings = len(a["mapping_widths"])
    return stylegan.stylegan_zoo(
        case.w, case.z, a["depths"], mappings, noise, a["leak"], a["blend"], a["truncation"],
        a["tanh"],
    )  # fmt: skip


def _genforce_stylegan(case: Case) -> Activations:
    form = case.setting("fused_scale", "auto")
    if not case.a["const_input"] or case.a["channel_noise"]:
        raise UserError("--verify=torch: genforce's StyleGAN with a learned constant only")

    def is_fused_at(size: int) -> bool:
        return form == "true" or (form == "auto" and size >= 128)

    return stylegan.stylegan_genforce(
        case.w,
        case.z,
        case.resolutions,
        len(case.a["mapping_widths"]),
        case.classes,
        fused=is_fused_at,
        wscale=case.setting("use_wscale", True),
        lod=case.lod,
        tanh=case.a["tanh"],
        rate=case.setting("mapping_lr_mul", 0.01),
    )


def _genforce_stylegan2(case: Case) -> Activations:
    return stylegan2.stylegan2_genforce(
        case.w,
        case.z,
        case.resolutions,
        len(case.a["mapping_widths"]),
        case.classes,
        skip=case.a["skip"],
        demodulate=case.a["demodulate"],
        wscale=case.setting("use_wscale", True),
        tanh=case.a["tanh"],
        rate=case.setting("mapping_lr_mul", 0.01),
    )


def _nvidia_stylegan2(case: Case) -> Activations:
    return stylegan2.stylegan2_nvidia(
        case.w,
        case.z,
        case.resolutions,
        case.classes,
        skip=case.a["skip"],
        clamp=case.a["clamp"],
        rate=get_rate(build_record(case.network), Settings(case.given)),
        taps=_taps(case, "resample_filter"),
    )


def _rosinality(case: Case) -> Activations:
    size = 4 * 2 ** (len(case.a["depths"]) - 1)
    rate, taps = case.setting("lr_mlp", 0.01), _taps(case, "blur.kernel")
    return stylegan2.stylegan2_rosinality(case.w, case.z, size, rate=rate, taps=taps)


def _taps(case: Case, name: str) -> torch.Tensor:
    """Return the taps of the first filter of a name; without one there is no upsampling."""
    stored = next((value for key, value in case.w.items() if key.endswith(name)), stylegan2.TAPS)
    taps = stored.sum(dim=0) if stored.ndim == 2 else stored
    return taps / taps.sum()


def _stylegan3(case: Case) -> Activations:
    schedule: dict[str, Any] = dict(case.a["schedule"])
    names = {
        "margin": "margin_size",
        "kernel": "conv_kernel",
        "oversampling": "lrelu_upsampling",
        "radial": "use_radial_filters",
    }
    return stylegan3.stylegan3(
        case.w,
        case.z,
        schedule.pop("image_size"),
        case.classes,
        rate=get_rate(build_record(case.network), Settings(case.given)),
        output_scale=case.a["output_scale"],
        conv_clamp=case.a["clamp"],
        **{names.get(name, name): value for name, value in schedule.items()},
    )


def _biggan_deep(case: Case) -> Activations:
    assert case.classes is not None
    config = {
        "eps": case.a["eps"],
        "channel_width": case.a["width"],
        "n_stats": case.a["num_stats"],
        "layers": case.a["blocks"],
        "attention_layer_position": case.a["attention"],
    }
    return biggan.biggan(case.w, case.z, case.classes, 1.0, config)


def _biggan_pytorch(case: Case) -> Activations:
    assert case.classes is not None
    form = next(f for f in STATISTICS if f"blocks.0.0.bn1.{f.format('mean')}" in case.w)
    blocks = len(case.a["widths"]) - 1
    return biggan.biggan_pytorch(case.w, case.z, case.classes, blocks, case.a["eps"], form)


def _residual(case: Case) -> Activations:
    pattern = re.compile(r"(resnet[_.](\d+)(?:_(\d+))?)\.conv_0\.weight")
    blocks = [match.groups(default="0") for match in map(pattern.fullmatch, case.w) if match]
    names: list[str] = []
    for name, _, number in sorted(blocks, key=lambda block: (int(block[1]), int(block[2]))):
        names += ["", name] if names and number == "0" else [name]
    names += [""] * case.a.get("doubles_last", False)
    wide = case.w["conv_img.weight"].shape[2] == 7
    normalize = case.setting("normalize_classes", not wide)
    return residual.residual(case.w, case.z, case.classes, names, normalize)


REFERENCES: dict[str, Callable[[Case], Activations]] = {
    "dcgan/examples": _chain,
    "dcgan/zoo": _zoo_dcgan,
    "pgan/zoo": _zoo_pgan,
    "pgan/genforce": _genforce_pgan,
    "pgan/netdissect": _netdissect,
    "stylegan/zoo": _zoo_stylegan,
    "stylegan/genforce": _genforce_stylegan,
    "stylegan2/genforce": _genforce_stylegan2,
    "stylegan2/nvidia": _nvidia_stylegan2,
    "stylegan2/rosinality": _rosinality,
    "stylegan3/nvidia": _stylegan3,
    "biggan/huggingface": _biggan_deep,
    "biggan/ajbrock": _biggan_pytorch,
    "residual/sizes": _residual,
    "residual/sequence": _residual,
}
