"""What the artifacts are called that hold the images of a run's page, and where they lie."""

from __future__ import annotations


def page_images(part: str) -> str:
    """Return the name of the page's images of "own", "sweep", or a split by its artifact's name."""
    return f"page {part}"


def image_place(part: str) -> str:
    """Return where the page's images of a part of a run lie."""
    return f"page_images/{part.replace(' ', '-')}.npz"
