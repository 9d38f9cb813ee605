"""Converted networks beside the numbers of the reference networks, array by array.

    python -m tests.parity [FOLDER]

prints, for every fixture in a folder (tests/golden by default), the worst array and its error
max|a - b| / max(1, max|b|), and fails where one is over the tolerance or was not compared.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cgjax.generators.layers import convolve, pixel_norm, transposed_convolve
from tests.golden_cases import GOLDEN, TOLERANCE, Golden, error, read_golden, run_everything

# Inputs, and outputs of the reference in training mode, which no converter reproduces.
NOT_COMPARED = r"z|c|y|class_vector|truncations|noise_\d+|random_noise_\d+|.*train_mode.*"

Arrays = dict[str, Any]


class Case:
    """A fixture, converted; `check` collects errors by array name."""

    def __init__(self, golden: Golden, converter: str, settings: dict[str, str]):
        self.golden, self.converter, self.settings = golden, converter, settings
        self.errors: dict[str, float] = {}
        self.gen = self.convert(golden.checkpoint)
        self.network = self.gen.network
        self.z = jnp.asarray(golden.arrays["z"].reshape(-1, self.gen.latent_dim))

    def convert(self, checkpoint: Path, **settings: str) -> Any:
        """Convert a file with the fixture's settings, changed."""
        from converters.__main__ import convert

        with tempfile.TemporaryDirectory() as folder:
            return convert(self.converter, checkpoint, folder, {**self.settings, **settings})

    def without(self, key: str) -> Any:
        """Convert the file with one of its generators removed."""
        import torch

        from converters.reading import read_checkpoint

        content = dict(read_checkpoint(self.golden.checkpoint).content)
        del content[key]
        tensors = {
            k: {n: torch.from_numpy(np.array(a)) for n, a in v.items()}
            for k, v in content.items()
            if k != "config"
        }
        with tempfile.NamedTemporaryFile(suffix=".pth") as file:
            torch.save({**tensors, "config": content.get("config", {})}, file.name)
            return self.convert(Path(file.name))

    def check(self, name: str, ours: Any) -> None:
        """Compare with an array of the fixture, if it holds it."""
        if name in self.golden.arrays:
            self.errors[name] = error(ours, self.golden.arrays[name])

    def noise(self, prefix: str) -> list[np.ndarray] | None:
        """Return the fixture's noise arrays in NHWC, in order."""
        names = sorted(n for n in self.golden.arrays if re.fullmatch(prefix + r"_\d+", n))
        return [self.golden.arrays[n].transpose(0, 2, 3, 1) for n in names] or None


def _dcgan(case: Case) -> None:
    activations, _ = run_everything(case.gen, case.z, resume=False)
    network, count = case.network, len(case.gen.layers)
    examples = "nz" in case.golden.meta
    before: Any = None
    for i, layer in enumerate(case.gen.layers):
        if i == 0:
            convolved = jnp.einsum("nd,dyxc->nyxc", case.z, network.first[...])
        else:
            convolved = transposed_convolve(before, network.kernels[i - 1][...])
        before = activations[layer]
        middle = "conv_format" if i == 0 else f"mid_convTranspose{i}"
        case.check(f"conv_main_{3 * i:02d}" if examples else middle, convolved)
        case.check(f"act_main_{3 * i + 2:02d}" if examples else f"act_relu{i}", before)
    last = transposed_convolve(before, network.output[...])
    case.check(f"conv_main_{3 * count:02d}" if examples else "mid_outlayer", last)
    case.check("image", activations["image"])


def _pgan(case: Case) -> None:
    activations, _ = run_everything(case.gen, case.z, resume=False)
    case.check("z_norm", pixel_norm(case.z))
    for layer in case.gen.layers:
        case.check(f"act_{layer}", activations[layer])
    case.check("image", activations["image"])
    for k in range(len(case.network.to_rgb)):
        zoo, genforce = ("s0_c0" if k == 0 else f"s{k}_c1"), f"layer{2 * k + 1}_pn"
        for name, layer in ((f"rgb_{k}", zoo), (f"rgb_output{k}", genforce)):
            if name in case.golden.arrays:
                case.check(name, case.network.to_image(activations[layer], k))
    if "image_netG" in case.golden.arrays:
        case.check("image_netG", case.without("avgG").images(case.z))
    if "image_generator" in case.golden.arrays:
        case.check("image_generator", case.without("generator_smooth").images(case.z))
    if "image_lod0" in case.golden.arrays:
        case.check("image_lod0", case.convert(case.golden.checkpoint, lod="0").images(case.z))


def _network_of(gen: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function of a network and arrays as one program."""
    graph, weights = nnx.split(gen.network)
    return jax.jit(lambda w, *a: function(nnx.merge(graph, w), *a))(weights, *arguments)


def _styles(network: Any, w: Any, inputs: Any) -> tuple[Any, list[Any], list[Any]]:
    """Return the styles by layer and what each convolution and image layer makes of its own."""
    wp = network.spread(w, inputs)
    if network.family == "stylegan":
        pairs = [network.style_of(i, wp[:, i]) for i in range(len(network.plan))]
        # The reference adds the 1 after this point, we have it in the bias.
        return wp, [jnp.concatenate([a - 1, b], axis=1) for a, b in pairs], []
    convolutions = [network.style_of(i, wp) for i in range(len(network.plan))]
    images = [network.rgb_style_of(r, wp) for r in range(len(network.to_rgb))]
    return wp, convolutions, images


def _stylegan_zoo(case: Case) -> None:
    noise = case.noise("noise")
    activations, _ = run_everything(case.gen, case.z, noise=noise, resume=False)
    case.check("mean_w", case.network.mean_style[...][None])
    case.check("w", activations["w"])
    wp = case.network.spread(activations["w"], case.network.resolve(len(case.z)))
    case.check("w_truncated", wp[:, 0])
    bias = case.network.biases[0][...][None, None, None]
    case.check("conv_s0", convolve(activations["s0_a0"], case.network.kernels[0][...]) + bias)
    for layer in case.gen.layers:
        case.check(f"act_{layer}", activations[layer])
    last = len(case.network.to_rgb)
    case.check(f"rgb_{last}", case.network.to_image(activations[case.gen.layers[-1]], last - 1))
    case.check("image", activations["image"])
    case.check("image_zero_noise", case.gen.images(case.z, noise="zeros"))


def _truncation(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "truncation": run.get("trunc_psi", run.get("truncation_psi")),
        "truncation_layers": run.get("trunc_layers", run.get("truncation_cutoff")),
    }


def _style_based(case: Case) -> None:
    gen, network, runs = case.gen, case.network, case.golden.meta["runs"]
    extra = {"condition": case.golden.arrays["c"]} if "c" in case.golden.arrays else {}
    case.check("z_norm", pixel_norm(case.z))
    for i, run in enumerate(runs):
        keywords = {**_truncation(run), **extra}
        activations, _ = run_everything(gen, case.z, **keywords, resume=False)
        inputs = network.resolve(len(case.z), **keywords)
        wp, styles, image_styles = _network_of(gen, _styles, activations["w"], inputs)
        for name in (f"run{i}_wp", f"run{i}_ws"):
            case.check(name, wp)
        case.check(f"run{i}_image", activations["image"])
        if i:
            continue
        case.check("w", activations["w"])
        for k, style in enumerate(styles):
            case.check(f"run0_style{k:02d}", style)
        for k, style in enumerate(image_styles):
            case.check(f"run0_output_style{k}", style)
        for layer in gen.layers[1:]:
            case.check(f"run0_act_{layer}", activations[layer])
        _image_layers(case, activations, wp)
        for name, noise in (("random_noise", case.noise("random_noise")), ("no_noise", "zeros")):
            if f"run0_image_{name}" in case.golden.arrays:
                case.check(f"run0_image_{name}", gen.images(case.z, noise=noise, **keywords))
        _other_generators(case, keywords)
        if "run0_image_lod0" in case.golden.arrays:
            finished = case.convert(case.golden.checkpoint, lod="0")
            case.check("run0_image_lod0", finished.images(case.z, **keywords))


def _stylegan3(case: Case) -> None:
    extra = {"condition": case.golden.arrays["c"]} if "c" in case.golden.arrays else {}
    for i, run in enumerate(case.golden.meta["runs"]):
        keywords = {**_truncation(run), **extra}
        activations, _ = run_everything(case.gen, case.z, **keywords, resume=False)
        inputs = case.network.resolve(len(case.z), **keywords)
        case.check(f"run{i}_ws", case.network.spread(activations["w"], inputs))
        case.check(f"run{i}_image", activations["image"])
        if i == 0:
            case.check("w", activations["w"])
            for layer in case.gen.layers[1:]:
                case.check(f"run0_act_{layer}", activations[layer])
            _other_generators(case, keywords)


def _other_generators(case: Case, keywords: dict[str, Any]) -> None:
    """Compare with what other choices than the converter's own give: raw weights, no clamp."""
    for name, settings in (
        ("image_G", {"network": "G"}),
        ("image_g", {"network": "g"}),
        ("image_unclamped", {"conv_clamp": "0"}),
    ):
        if f"run0_{name}" in case.golden.arrays:
            other = case.convert(case.golden.checkpoint, **settings)
            case.check(f"run0_{name}", other.images(case.z, **keywords))


def _image_layers(case: Case, activations: Arrays, wp: Any) -> None:
    network = case.network
    running: Any = None
    for r in range(len(network.to_rgb)):
        if network.family == "stylegan":
            rgb = network.to_image(activations[f"layer{2 * r + 1}"], r)
        else:
            layer = network.layers[2 * r + 1 + network.has_input_layer]
            state = {"h": activations[layer], "styles": wp}
            if running is not None:
                from cgjax.generators.layers import upsample_filtered

                state["image"] = upsample_filtered(running)
            running = network.add_image(state, r)
            rgb = network.to_image(activations[layer], r, wp)
            case.check(f"run0_img_b{4 * 2**r}", running)
            rosinality = f"to_rgbs_{r - 1}" if r else "to_rgb1"
            case.check(f"run0_img_{rosinality}", running)
            # There without the bias.
            bias = network.to_rgb_biases[r][...][None, None, None]
            case.check(f"run0_rgbconv_{rosinality}", rgb - bias)
        case.check(f"run0_rgb_output{r}", rgb)
        case.check(f"run0_rgb_b{4 * 2**r}", rgb)


def _biggan(case: Case) -> None:
    gen, classes = case.gen, case.golden.arrays["class_vector"]
    for i, t in enumerate(case.golden.meta["truncations"]):
        activations, _ = run_everything(gen, case.z, condition=classes, truncation=t, resume=False)
        for layer in gen.layers[1:]:
            case.check(f"t{i}_act_{layer}", activations[layer])
        case.check(f"t{i}_image", activations["image"])
        if i:
            continue
        case.check("t0_gen_z", activations["gen_z"])
        first = activations["gen_z"].reshape(len(case.z), 4, 4, -1)
        case.check("t0_act_init_nchw", first)
        inputs = gen.network.resolve(len(case.z), condition=classes, truncation=t)

        def inside(network: Any, z: Any, inputs: Any, first: Any, last: Any) -> Arrays:
            state = network.begin(z, inputs)
            inputs, found, x = state["inputs"], {}, first
            found["cond_vector"] = inputs["condition"]
            found["embed"] = inputs["condition"][:, network.latent_dim :]
            for b in (0, 1):
                for step, h in network.modules[b].steps(x, inputs, network.eps):
                    found[f"t0_L{b:02d}_{step}"] = h
                x = h
            normalized = network.normalize_last({"h": last, "inputs": inputs})
            found["t0_final_bn"] = normalized
            bias = network.to_rgb_bias[...][None, None, None]
            found["t0_conv_to_rgb"] = convolve(jax.nn.relu(normalized), network.to_rgb[...]) + bias
            return found

        last = activations[gen.layers[-1]]
        for name, ours in _network_of(gen, inside, case.z, inputs, first, last).items():
            if name == "t0_conv_to_rgb" and name in case.golden.arrays:
                # Of the reference's channels only those of the image are kept.
                kept = {name: case.golden.arrays[name][:, : ours.shape[-1]]}
                case.golden.arrays.update(kept)
            case.check(name, ours)


def _biggan_pytorch(case: Case) -> None:
    classes = case.golden.arrays["y"]
    activations, _ = run_everything(case.gen, case.z, condition=classes, resume=False)
    for layer in case.gen.layers:
        case.check(f"act_{layer}", activations[layer])
    case.check("image", activations["image"])


FAMILIES: dict[str, tuple[str, Callable[[Case], None]]] = {
    "dcgan_examples": ("dcgan", _dcgan),
    "dcgan_zoo": ("dcgan", _dcgan),
    "pgan_zoo": ("pgan", _pgan),
    "pggan_genforce": ("pgan", _pgan),
    "pggan_netdissect": ("pgan", _pgan),
    "stylegan_zoo": ("stylegan", _stylegan_zoo),
    "stylegan_genforce": ("stylegan", _style_based),
    "stylegan2_genforce": ("stylegan2", _style_based),
    "stylegan2_nvidia_ada": ("stylegan2", _style_based),
    "stylegan2_nvidia_pkl": ("stylegan2", _style_based),
    "stylegan2_rosinality": ("stylegan2", _style_based),
    "stylegan3_nvidia_pkl": ("stylegan3", _stylegan3),
    "biggan_deep_hf": ("biggan", _biggan),
    "biggan_pytorch": ("biggan", _biggan_pytorch),
}

# Options of the reference's constructors that its files do not tell.
OPTIONS = ("final_tanh", "fused_scale", "use_wscale", "demodulate")


def parity(folder: Path) -> dict[str, float]:
    """Convert a fixture and compare it with every array it holds.

    Returns:
        The error by array name; an array that was not compared is NaN.
    """
    golden = read_golden(folder)
    converter, compare = FAMILIES[golden.meta["family"]]
    built = golden.meta.get("build_kwargs", {})
    settings = {name: str(built[name]).lower() for name in OPTIONS if name in built}
    case = Case(golden, converter, settings)
    compare(case)
    names = [n for n in golden.arrays if not re.fullmatch(NOT_COMPARED, n)]
    return {name: case.errors.get(name, float("nan")) for name in names}


def main() -> int:
    """Print the worst error of every fixture in a folder."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    failed = 0
    for folder in sorted(p.parent for p in root.glob("*/meta.json")):
        errors = parity(folder)
        worst = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]))
        failed += not errors[worst] < TOLERANCE
        family = json.loads((folder / "meta.json").read_text())["family"]
        print(f"{folder.name}\t{family}\t{len(errors)} arrays\t{errors[worst]:.1e}\t{worst}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
