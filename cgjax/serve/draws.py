"""Draws, made in steps so that several can take turns; images are sent as soon as they pass."""

from __future__ import annotations

import io
import json
import secrets
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from cgjax.errors import UserError
from cgjax.regions.region import WHOLE, MarginRange
from cgjax.report.sprites import data_url, thumbnails, to_webp
from cgjax.run.run import Run
from cgjax.runtime.array_files import to_npy
from cgjax.runtime.command import users_error
from cgjax.runtime.files import safe_name
from cgjax.runtime.png import to_pixels, to_png
from cgjax.serve.wanted import Wanted
from cgjax.stages.draw import announce

Message = dict[str, Any]
"""A line of the response to a draw: `begun`, `images` as they pass, then `done`; or `error`."""

Latents = Float[np.ndarray, "n d"]

BLOCK = 16
"""Images per pass: constant, so that one compiled program serves draws of any size."""

SHOWN = 256
"""Largest side of an image on the page, in pixels; downloads have the full size."""

KEPT = 64
"""Number of recent draws, finished or not, that can still be downloaded."""


class KeptDraw(NamedTuple):
    """A draw, or the part of it that is finished.

    Attributes:
        wanted: the request.
        sampler: the one that draws it.
        latents: (n, d) float32; downloads recompute the images from them.
        acceptance: of the membership check; None if unchecked or unfinished.
    """

    wanted: Wanted
    sampler: str
    latents: Latents
    acceptance: float | None = None

    def first(self, num: int) -> KeptDraw:
        """Return the draw of the first images alone: the same as a draw of that many images."""
        if num >= len(self.latents):
            return self
        wanted = self.wanted._replace(num=num)
        return KeptDraw(wanted, self.sampler, self.latents[:num])


class Draws:
    """Makes draws from one run, and keeps the latest ones."""

    def __init__(self, run: Run):
        """Take a run that has clusterings."""
        self._run = run
        self._kept: OrderedDict[str, KeptDraw] = OrderedDict()
        self._lock = threading.Lock()

    def draw(self, wanted: Wanted) -> Generator[Message, None, None]:
        """Draw the same latents, in the same order, as `--mode=sample` with the same flags.

        Yields:
            First {"begun": the expected cost in one line, "num": number of images, "id", "sampler",
            "name", "command": draws the same}. Then {"images": `data:` addresses of the next
            images, "drawn": their number so far, "command": draws that many}. At last {"done":
            {"acceptance", "id", "sampler", "name", "command"}}; or {"error": one line}. The images
            drawn so far can be downloaded by the id.
        """
        try:
            yield from self._draw(wanted)
        except Exception as error:
            line = users_error(error)
            if line is None:
                yield {
                    "error": f"a bug in cgjax: {type(error).__name__}; see its terminal for details"
                }
                raise
            yield {"error": line}

    def _draw(self, wanted: Wanted) -> Generator[Message, None, None]:
        run = self._run
        region = run.region(wanted.cluster, wanted.margin)
        sampler, verify = run.samplers.choose(region, wanted.sampler, wanted.verify)
        announcement = announce(run, region, sampler, wanted.num) if verify else sampler
        token, name = secrets.token_hex(8), safe_name(wanted.cluster)
        identity = {"id": token, "sampler": sampler, "name": name}
        identity |= {"command": _command(run, wanted, sampler)}
        yield {"begun": announcement, "num": wanted.num, **identity}
        key = jax.random.key(wanted.seed)
        steps = run.drawing(key, region, wanted.num, sampler=sampler, verify=verify)
        drawn, latents = 0, np.zeros((0, run.generator.gen.latent_dim), np.float32)
        while True:
            try:
                passed = next(steps)
            except StopIteration as end:
                latents, draw = end.value
                break
            if not len(passed):
                yield {"images": [], "drawn": drawn}
            latents = np.concatenate([latents, passed])
            self._keep(token, KeptDraw(wanted, sampler, latents))
            for pixels in self._pixels(passed):
                drawn += len(pixels)
                command = _command(run, wanted._replace(num=drawn), sampler)
                images = [_address(image) for image in pixels]
                yield {"images": images, "drawn": drawn, "command": command}
        acceptance = draw.acceptance if draw else None
        self._keep(token, KeptDraw(wanted, sampler, latents, acceptance))
        yield {"done": {**identity, "acceptance": acceptance}}

    def _pixels(self, latents: Latents) -> Iterator[UInt8[np.ndarray, "n s s 3"]]:
        """Make images in blocks of a constant size; the last block is padded."""
        for i in range(0, len(latents), BLOCK):
            rows = latents[i : i + BLOCK]
            full = np.concatenate([rows, np.repeat(rows[-1:], BLOCK - len(rows), axis=0)])
            yield to_pixels(self._run.generator.images(full)[: len(rows)])

    def _keep(self, token: str, drawn: KeptDraw) -> None:
        with self._lock:
            self._kept[token] = drawn
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def find(self, token: str) -> KeptDraw | None:
        """Return a draw by its id; None if it is no longer kept."""
        with self._lock:
            return self._kept.get(token)

    def download(self, drawn: KeptDraw, kind: str) -> Generator[bytes, None, None]:
        """Return a draw as a file, piece by piece.

        Args:
            drawn: the draw.
            kind: "images.zip" (PNG files, the latents and the request), "images.npy" ((n, s, s, 3)
                uint8), "latents.npy" ((n, d) float32), or "<number>.png" for a single image.

        Raises:
            UserError: for any other kind, or an image that is not in the draw.
        """
        if kind == "images.zip":
            return self._zip(drawn)
        if kind == "images.npy":
            return self._npy(drawn)
        if kind == "latents.npy":
            return _one(to_npy(drawn.latents))
        number = kind.removesuffix(".png")
        if kind.endswith(".png") and number.isdecimal() and len(number) < 10:
            if int(number) >= len(drawn.latents):
                raise UserError(
                    f"no image {number}: this draw has {len(drawn.latents)}, counted from 0"
                )
            return self._png(drawn.latents[int(number)])
        raise UserError(
            f"no download {kind!r}; expected images.zip, images.npy, latents.npy or 0.png"
        )

    def _about(self, drawn: KeptDraw) -> Message:
        """Return the request and which run's generator answered it."""
        about = {**drawn.wanted._asdict(), "sampler": drawn.sampler}
        about |= {"acceptance": drawn.acceptance}
        about |= {"command": _command(self._run, drawn.wanted, drawn.sampler)}
        return about | {"weights_sha256": self._run.provenance.weights_sha256}

    def _zip(self, drawn: KeptDraw) -> Generator[bytes, None, None]:
        pipe = _Pipe()
        with zipfile.ZipFile(pipe, "w") as archive:
            archive.writestr("drawn.json", json.dumps(self._about(drawn), indent=1) + "\n")
            archive.writestr("latents.npy", to_npy(drawn.latents))
            number = 0
            for pixels in self._pixels(drawn.latents):
                for image in pixels:
                    archive.writestr(f"{number:05d}.png", to_png(Image.fromarray(image)))
                    number += 1
                yield pipe.take()
        yield pipe.take()

    def _npy(self, drawn: KeptDraw) -> Generator[bytes, None, None]:
        is_first = True
        for pixels in self._pixels(drawn.latents):
            if is_first:
                header = io.BytesIO()
                shape = (len(drawn.latents), *pixels.shape[1:])
                layout = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(header, layout)
                yield header.getvalue()
                is_first = False
            yield pixels.tobytes()

    def _png(self, latent: Float[np.ndarray, " d"]) -> Generator[bytes, None, None]:
        (pixels,) = self._pixels(latent[None])
        yield to_png(Image.fromarray(pixels[0]))

    def warm_up(self) -> None:
        """Compile the programs of the default sampler, so that the first draw need not wait."""
        if self._run.held.has_own:
            region = self._run.regions[0]
            name = self._run.samplers.name_for(region)
            self._run.draw(jax.random.key(0), region, 1, sampler=name)
        for _ in self._pixels(np.asarray(self._run.prior_latents[:1])):
            pass


class _Pipe(io.RawIOBase):
    """A writable file; `take` removes and returns what has been written so far."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _one(content: bytes) -> Generator[bytes, None, None]:
    yield content


def _address(pixels: UInt8[np.ndarray, "s s 3"]) -> str:
    return data_url(to_webp(Image.fromarray(thumbnails(pixels[None], SHOWN)[0]), 85))


def _command(run: Run, wanted: Wanted, sampler: str) -> str:
    """Return the command that draws the same images."""
    margin = MarginRange.parse(wanted.margin)
    words = [f"--cluster={wanted.cluster}"]
    words += [f"--margin={margin}"] if margin != WHOLE else []
    words += [f"--num={wanted.num}", f"--seed={wanted.seed}", f"--sampler={sampler}"]
    words += [] if wanted.verify else ["--noverify"]
    words.append(f"--out=samples/{safe_name(wanted.cluster)}")
    return run.folder.command_of("sample", *words)
