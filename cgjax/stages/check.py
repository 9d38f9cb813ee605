"""`--mode=check`: whether this is a generator, and what each of its layers costs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from cgjax.config.schema import complete, validate
from cgjax.errors import UserError
from cgjax.generators.base import layer_index, suggested_layer
from cgjax.generators.conditioned import load_conditioned, source_of
from cgjax.generators.contract import Findings, check_generator
from cgjax.numerics.arguments import shown


def describe_generator(config: Mapping[str, Any]) -> str:
    """Check a config's generator at all of its layers; nothing is written.

    Args:
        config: nested plain dicts, as `cgjax.config.plain.to_plain` returns them. A layer that the
            generator does not have is only reported in the text.

    Returns:
        The findings as text: the size and range of the images and, for every layer, its shape,
        the memory and time for a thousand latents, and whether the network can resume from it.

    Raises:
        UserError: a config with wrong values; a fault of the generator, with what to change.
        ForeignError: the generator's own code raised an exception.
    """
    config = complete(config)
    validate(config)
    settings, batch = config["generator"], config["generator"]["batch"]
    generator = load_conditioned(settings)
    findings = check_generator(generator, name=source_of(settings), time_batch=batch)
    return to_text(findings, batch, config["layer"])


def to_text(findings: Findings, batch: int, chosen: str) -> str:
    """Lay out findings as text.

    Args:
        findings: with times.
        batch: latents per pass in the measurement.
        chosen: the config's layer, by its name or number; it is marked.
    """
    names = tuple(layer.name for layer in findings.layers[:-1])
    try:
        chosen = names[layer_index(names, chosen)]
        verdict, marks = "no fault found", "; * the config's layer"
    except UserError:
        typed = shlex.quote(f"--config.layer={suggested_layer(names, chosen)}")
        verdict = (
            f"no fault found in it, but it has no layer {shown(chosen)}, which the config asks "
            f"for; give one of these, such as {typed}"
        )
        marks = ""
    size = " x ".join(map(str, findings.layers[-1].shape))
    low, high = findings.image_range
    rows = [("layer", "shape", "MB", "ms", "resume")]
    for layer in findings.layers:
        mark = "*" if layer.name == chosen else ""
        rows.append(
            (
                layer.name + mark,
                " x ".join(map(str, layer.shape)),
                f"{layer.megabytes:.1f}",
                "" if layer.milliseconds is None else f"{layer.milliseconds:.0f}",
                "" if layer is findings.layers[-1] else "yes" if layer.can_resume else "no",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        f"{findings.name}: {verdict}",
        f"latents of {findings.latent_dim} numbers; images {size}, from {low:.2f} to {high:.2f}",
        f"MB and ms are those of a thousand latents, in passes of {batch}{marks}",
        "",
    ]
    for row in rows:
        left = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        right = [row[i].rjust(widths[i]) for i in (2, 3, 4)]
        lines.append("  ".join(left + right).rstrip())
    return "\n".join(lines)
