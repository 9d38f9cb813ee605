"""What NVIDIA's pickles say beside the tensors: how a network was built, and by which code.

What a network was built with stands in its constructor's arguments; what they leave out is the
default of the code that wrote the file, and two repositories have a StyleGAN2 each with defaults of
its own. The values that the modules keep are the surest: they are what the arguments became. Next
come the arguments, then the default of the class, known by its module's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cgjax.errors import UserError
from converters.networks import Network
from converters.safe_pickle import CLASS, VALUES
from converters.settings import Settings, as_mapping
from converters.stylegan import MAPPING_RATE

# The modules that the published classes come from: stylegan2-ada-pytorch, stylegan3 (both kinds).
ADA, STYLEGAN2, STYLEGAN3 = "networks", "networks_stylegan2", "networks_stylegan3"
_REPOSITORIES = {
    ADA: "training.networks (stylegan2-ada-pytorch)",
    STYLEGAN2: "training.networks_stylegan2 (the stylegan3 repository)",
    STYLEGAN3: "training.networks_stylegan3 (the stylegan3 repository)",
}
_OUT_OF_REACH = ("resetting", "Superres")

CLAMPS = {ADA: 0.0, STYLEGAN2: 256.0, STYLEGAN3: 256.0}
"""What activations are clamped at unless the arguments say otherwise; 0 for not at all."""


class Built(NamedTuple):
    """What a pickle says of one of its networks.

    Attributes:
        arguments: of the constructor, those of its synthesis network among them; empty for a bare
            state dict.
        mapping: arguments of the mapping network.
        values: numbers, words and None that the modules keep, by dotted path.
        module: which code wrote it, one of the three names above; "" if nothing tells.
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
        """Return every value of an attribute's name, in the parts whose path begins so."""
        return [
            value
            for path, value in self.values.items()
            if path.rpartition(".")[2] == name and path.startswith(part)
        ]


def built(network: Network) -> Built:
    """Return what a network's file says of how it was built.

    Raises:
        UserError: it is StyleGAN-XL; or what stands beside the tensors is no such record.
    """
    what = f"{network.path}: what {network.name} was built with"
    record = as_mapping(_record(network), what)
    name = str(record.pop(CLASS, ""))
    values = as_mapping(record.pop(VALUES, None), what)
    if any(word in name for word in _OUT_OF_REACH):
        raise UserError(f"{network.path} is a StyleGAN-XL ({name}), which is not supported")
    mapping, synthesis = (
        as_mapping(record.get(part), what) for part in ("mapping_kwargs", "synthesis_kwargs")
    )
    module = name.rpartition(".")[0].rpartition(".")[2]
    if record or values:
        module = module or _infer(record, values)
    return Built({**record, **synthesis}, mapping, values, module if module in CLAMPS else "")


def _record(network: Network) -> Any:
    """Find the entry of `settings` that stands beside a network."""
    place = network.checkpoint.content
    *above, last = network.name.split(".")
    for name in above:
        place = place.get(name) if isinstance(place, Mapping) else None
    settings = place.get("settings") if isinstance(place, Mapping) else None
    return settings.get(last) if isinstance(settings, Mapping) else None


def _infer(record: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Tell the code from what only it writes, where the class has no module's name.

    The stylegan3 repository's dense layers keep their sizes and its generators take the arguments
    of their synthesis network as their own; stylegan2-ada-pytorch's do neither.
    """
    keeps_sizes = any(path.endswith(".in_features") for path in values)
    if "synthesis.margin_size" in values:
        return STYLEGAN3
    if "synthesis_kwargs" in record and not keeps_sizes:
        return ADA
    is_flat = any(name in record for name in ("channel_base", "channel_max", "conv_clamp"))
    return STYLEGAN2 if keeps_sizes or is_flat else ADA


def get_clamp(found: Built, settings: Settings, network: Network, assumed: list[str]) -> float:
    """Return the bound on activations, 0 for none; a default is noted in `assumed`.

    Raises:
        UserError: the layers keep several bounds, or the user gave none that is one.
    """
    name = "conv_clamp"
    kept = {value or 0.0 for value in found.kept(name, "synthesis.")}
    if len(kept) > 1:
        raise UserError(f"{network.path}: {network.name} has layers with different {name}: {kept}")
    if kept or name in found.arguments:
        settings.default(name, kept.pop() if kept else found.arguments[name] or 0.0)
    elif not settings.is_given(name):
        bound = f"{CLAMPS[found.module]:g}" if CLAMPS.get(found.module) else "none"
        if found.module:
            assumed.append(
                f"{name}: {bound}, the default of {found.code}; --set {name}=... if it was another"
            )
        else:
            assumed.append(
                f"{name}: {bound}: the file does not say; --set {name}=256 if it was so built"
            )
    return settings.get(name, CLAMPS.get(found.module, 0.0), low=0)


def get_rate(found: Built, settings: Settings) -> float:
    """Return the mapping network's learning-rate factor."""
    name = "lr_multiplier"
    settings.default(name, found.values.get("mapping.fc0.bias_gain", found.mapping.get(name)))
    return settings.get(name, MAPPING_RATE)


def check_activations(found: Built, network: Network) -> None:
    """Check that every layer's activation is the one that our arithmetic has built in.

    Raises:
        UserError: naming another.
    """
    others = {str(v) for v in found.kept("activation")} - {"lrelu", "linear"}
    if others:
        raise UserError(
            f"{network.path}: {network.name} has activation {', '.join(sorted(others))}; only "
            "lrelu is known"
        )
