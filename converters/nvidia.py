"""What NVIDIA's pickles record besides the tensors: how a network was built, and by which code.

A network's constructor arguments are in the file; for those left out, the defaults of the code that
wrote it apply, and two repositories have a StyleGAN2 each, with defaults of their own. The values
that the modules keep are the most reliable: they are what the arguments became. Next come the
arguments, then the default of the class, known by its module's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cgjax.errors import UserError
from converters.axes import dense_kernel
from converters.mapping import RATE, fan_in_scale, mapping_rows
from converters.networks import Network
from converters.rows import Row, layer_rows
from converters.safe_pickle import CLASS, VALUES
from converters.settings import Settings, as_mapping
from converters.tensors import Tensors

# The modules that the published classes come from: stylegan2-ada-pytorch, stylegan3 (both kinds).
ADA, STYLEGAN2, STYLEGAN3 = "networks", "networks_stylegan2", "networks_stylegan3"
_REPOSITORIES = {
    ADA: "training.networks (stylegan2-ada-pytorch)",
    STYLEGAN2: "training.networks_stylegan2 (the stylegan3 repository)",
    STYLEGAN3: "training.networks_stylegan3 (the stylegan3 repository)",
}
_OUT_OF_REACH = ("resetting", "Superres")

CLAMPS = {ADA: 0.0, STYLEGAN2: 256.0, STYLEGAN3: 256.0}
"""The default bound that activations are clamped to; 0 for none."""


class BuildRecord(NamedTuple):
    """What a pickle records of one of its networks.

    Attributes:
        arguments: the constructor's, including those of its synthesis network; empty for a bare
            state dict.
        mapping: arguments of the mapping network.
        values: numbers, words and None that the modules keep, by dotted path.
        module: the code that wrote it, one of the three names above; "" if unknown.
    """

    arguments: Mapping[str, Any]
    mapping: Mapping[str, Any]
    values: Mapping[str, Any]
    module: str

    @property
    def code(self) -> str:
        """The module's name and repository, in words."""
        return _REPOSITORIES.get(self.module, "")

    def kept(self, name: str, part: str = "") -> list[Any]:
        """Return all values of an attribute, of the modules whose path starts with `part`."""
        return [
            value
            for path, value in self.values.items()
            if path.rpartition(".")[2] == name and path.startswith(part)
        ]


def build_record(network: Network) -> BuildRecord:
    """Return what a network's file records of how it was built.

    Raises:
        UserError: it is a StyleGAN-XL, or the record has another form.
    """
    what = f"{network.path}: what {network.name} was built with"
    settings = network.beside("settings")
    own = settings.get(network.name.split(".")[-1]) if isinstance(settings, Mapping) else None
    record = as_mapping(own, what)
    name = str(record.pop(CLASS, ""))
    values = as_mapping(record.pop(VALUES, None), what)
    if any(word in name for word in _OUT_OF_REACH):
        raise UserError(f"{network.path} is a StyleGAN-XL ({name}), which is not supported")
    mapping, synthesis = (
        as_mapping(record.get(part), what) for part in ("mapping_kwargs", "synthesis_kwargs")
    )
    module = name.rpartition(".")[0].rpartition(".")[2]
    if record or values:
        module = module or _infer_module(record, values)
    module = module if module in CLAMPS else ""
    return BuildRecord({**record, **synthesis}, mapping, values, module)


def _infer_module(record: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Recognise the code by what only it writes, for a class without its module's name.

    In the stylegan3 repository, dense layers keep their sizes and generators take the arguments of
    their synthesis network directly; in stylegan2-ada-pytorch neither is so.
    """
    keeps_sizes = any(path.endswith(".in_features") for path in values)
    if "synthesis.margin_size" in values:
        return STYLEGAN3
    if "synthesis_kwargs" in record and not keeps_sizes:
        return ADA
    is_flat = any(name in record for name in ("channel_base", "channel_max", "conv_clamp"))
    return STYLEGAN2 if keeps_sizes or is_flat else ADA


def get_clamp(record: BuildRecord, settings: Settings, network: Network) -> float:
    """Return the bound on activations, 0 for none; a default is added to `settings.assumed`.

    Raises:
        UserError: the layers keep different bounds, or the user's value is not a bound.
    """
    name = "conv_clamp"
    kept = {value or 0.0 for value in record.kept(name, "synthesis.")}
    default = CLAMPS.get(record.module, 0.0)
    bound = f"{default:g}" if default else "none"
    if len(kept) > 1:
        raise UserError(f"{network.path}: {network.name} has layers with different {name}: {kept}")
    if kept or name in record.arguments:
        settings.default(name, kept.pop() if kept else record.arguments[name] or 0.0)
    elif record.module:
        text = f"{bound}, the default of {record.code}; --set {name}=... if it was another"
        settings.assume(name, f"{name}: {text}")
    else:
        text = f"{bound}: the file does not say; --set {name}=256 if it was built with that"
        settings.assume(name, f"{name}: {text}")
    return settings.get(name, default, low=0)


def get_rate(record: BuildRecord, settings: Settings) -> float:
    """Return the mapping network's learning-rate factor."""
    name = "lr_multiplier"
    settings.default(name, record.values.get("mapping.fc0.bias_gain", record.mapping.get(name)))
    return settings.get(name, RATE)


class Inputs(NamedTuple):
    """What leads from a latent, and a class vector, to the styles.

    Attributes:
        rows: of the mapping network, the class embedding and the mean style.
        sizes: entries of the architecture.
    """

    rows: list[Row]
    sizes: dict[str, Any]


def read_inputs(tensors: Tensors, network: Network, style_dim: int, rate: float) -> Inputs:
    """Return the mapping network, which also reads the embedding of a class.

    Raises:
        UserError: the embedding leaves no room for a latent.
    """
    widths, rows = mapping_rows(tensors, "mapping.fc{}", rate)
    num_classes = embedding_dim = 0
    label = "mapping.embed"
    if f"{label}.weight" in tensors:
        embedding_dim, num_classes = shape = tensors.shape(f"{label}.weight", 2)
        ours = "embedding", "embedding_bias"
        rows += layer_rows(ours, label, shape, dense_kernel, fan_in_scale(num_classes))
    latent_dim = widths[0] - embedding_dim
    if latent_dim < 1:
        raise UserError(
            f"{network.path}: mapping.fc0 reads {widths[0]} values, the embedding has "
            f"{embedding_dim}: nothing is left for the latents"
        )
    if widths[-1] != style_dim:
        tensors.note(f"the mapping network ends in {widths[-1]} values, expected {style_dim}")
    rows.append(Row("mean_style", "mapping.w_avg", (widths[-1],)))
    sizes = {
        "latent_dim": latent_dim,
        "style_dim": style_dim,
        "mapping_widths": widths[1:],
        "num_classes": num_classes,
        "embedding_dim": embedding_dim or None,
    }
    return Inputs(rows, sizes)


def check_activations(record: BuildRecord, network: Network) -> None:
    """Check that every layer's activation is the one that our arithmetic has built in.

    Raises:
        UserError: one has another, which is named.
    """
    others = {str(v) for v in record.kept("activation")} - {"lrelu", "linear"}
    if others:
        raise UserError(
            f"{network.path}: {network.name} has activation {', '.join(sorted(others))}; only "
            "lrelu is known"
        )
