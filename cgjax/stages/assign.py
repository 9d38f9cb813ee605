"""The stage that says which cluster images of the user's own belong to, and how sure that is."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cgjax.figures.inversion import errors_by_cluster, pairs
from cgjax.inversion.held_out import NEIGHBOURS, num_right
from cgjax.inversion.inverter import Found
from cgjax.run.artifacts import assigned_name, assigned_place, declare_assigned
from cgjax.run.labels import LabelledRun
from cgjax.run.training import TrainingRun
from cgjax.runtime.csv_text import as_csv
from cgjax.runtime.files import as_utf8, make_folder, write_atomically
from cgjax.runtime.log import Metrics
from cgjax.runtime.photos import Photo, check_channels, find_photos, read_photos
from cgjax.runtime.png import to_png
from cgjax.runtime.signals import Interrupts
from cgjax.stages.graph import Maker
from cgjax.stages.groups import FOREIGN, Groups, Labels, Sureness, sureness
from cgjax.stages.inversion import InversionStage, Invertible

TABLE_LINES = 60
"""Images that are listed on the terminal; `assign.csv` has all."""

PAIRS = 48
"""Images on a contact sheet, the clearest ones."""

TABLE, FIGURE = "assign.csv", "errors"


class Belonging(NamedTuple):
    """Which cluster an image belongs to; `assign.csv` has a line of each.

    Attributes:
        file: the image's name.
        cluster: its id.
        name: what a person calls the cluster; empty if nothing.
        margin: distance to the nearest other centroid minus that to the own one; of labels the
            encoder's probability of the own one minus that of the likeliest other.
        depth: share of the cluster's members that have a lesser margin.
        right: of the `like` held-out images with the nearest margins, how many were assigned
            rightly.
        like: how many these are.
        error: mean absolute difference to the reconstruction, as a share of the pixels' range.
        error_above: share of the held-out images with a lesser error.
        encoder_features: mean squared difference of the encoder's features.
        is_made: whether both of these are such as the generator's own images have.
    """

    file: str
    cluster: int
    name: str
    margin: float
    depth: float
    right: int
    like: int
    error: float
    error_above: float
    encoder_features: float
    is_made: bool

    @property
    def shown(self) -> str:
        """The cluster by its id and name."""
        return f"{self.cluster} ({self.name})" if self.name else f"{self.cluster}"


class AssignStage:
    """Images in, a table and pictures out."""

    def __init__(self, run: Invertible, groups: Groups, maker: Maker, interrupts: Interrupts):
        """Prepare.

        Args:
            run: whose generator inverts the images.
            groups: what they are assigned to.
            maker: of the run's artifacts.
            interrupts: asked between batches.
        """
        self.run, self.groups, self.maker = run, groups, maker
        self._inversion = InversionStage(run, maker, interrupts)

    def run_all(self, folder: Path) -> str:
        """Assign the images of a folder; return the table as text.

        What was inverted before, under whatever name, is not inverted again.

        Args:
            folder: with the images.

        Raises:
            UserError: a folder without images, an image that cannot be read, a generator whose
                images are no colours; as `InversionStage`.
            Interrupted: asked to stop; saved.
        """
        generator, settings = self.run.generator, self.run.config["assign"]
        photos = find_photos(folder)
        shape = generator.images(np.zeros((1, generator.gen.latent_dim), np.float32)).shape
        check_channels(shape[3])

        def read(places: Sequence[int]) -> Float[np.ndarray, "n s s c"]:
            return read_photos([photos[i] for i in places], shape[1], shape[3])

        name = self._name(folder)
        declare_assigned(self.run.manifests.graph, self.run.config, name)
        inverter = self._inversion.inverter()
        sure = sureness(self.groups, self._inversion.held_out(inverter), settings["quantile"])
        # Further starts belong to what is found; the limit decides who gets them.
        how = f"{settings['restarts']} {settings['quantile']}"
        ids = [f"{photo.digest} {how}" for photo in photos]
        found = self._inversion.invert(inverter, ids, read, str(folder), sure.limits)
        table = self._table(photos, found, sure)
        known: dict[str, Any] = {"ids": ids, "table": [list(row) for row in table]}
        known["folder"] = str(folder.resolve())
        result = self.maker.result(assigned_name(name))
        if result is None or {key: result.get(key) for key in known} != known:
            with self.maker.making(assigned_name(name)) as result:
                result |= known
                self._write(self.run.folder.root / assigned_place(name), table, found, read, sure)
        place = self.run.folder.root / assigned_place(name)
        told = [str(sure), "", as_text(table), "", f"{place}/{TABLE}"]
        if inverter.function is None:
            told.insert(1, "this generator cannot be differentiated: by the encoder alone")
        return "\n".join(told)

    def _name(self, folder: Path) -> str:
        """Return what a folder's images are called: another folder of the same name has another."""
        own = name_of(folder)
        for number in itertools.count(1):
            name = own if number == 1 else f"{own}-{number}"
            known = self.maker.manifests.last_result(assigned_name(name)) or {}
            if known.get("folder", str(folder.resolve())) == str(folder.resolve()):
                break
        return name

    def _table(self, photos: list[Photo], found: Found, sure: Sureness) -> list[Belonging]:
        names, members = self.groups.names, self.groups.members(sure)
        labels, margins = self.groups.of(found.latents, found.guesses)
        right = num_right(margins, sure.margins, sure.is_right)
        above = sure.held.share_below(found.errors)
        made = sure.limits.keeps(found.errors, found.features)
        return [
            Belonging(
                as_utf8(photo.path.name),
                int(c),
                names[c],
                round(float(margins[i]), 4),
                round(float(np.searchsorted(members[c], margins[i]) / max(1, len(members[c]))), 4),
                int(right[i]),
                min(NEIGHBOURS, len(sure.margins)),
                round(float(found.errors[i]), 5),
                round(float(above[i]), 4),
                round(float(found.features[i]), 4),
                bool(made[i]),
            )
            for i, (photo, c) in enumerate(zip(photos, labels, strict=True))
        ]

    def _write(
        self, place: Path, table: list[Belonging], found: Found, read: Any, sure: Sureness
    ) -> None:
        """Write the table, the latents, a contact sheet a cluster, and the figure of the errors."""
        make_folder(place)
        rows = [belonging._asdict() for belonging in table]
        write_atomically(place / TABLE, as_csv(rows, Belonging._fields).encode())
        buffer = io.BytesIO()
        np.save(buffer, found.latents)
        write_atomically(place / "latents.npy", buffer.getvalue())
        groups = {
            f"cluster-{c}": [i for i, b in enumerate(table) if b.cluster == c and b.is_made]
            for c in range(len(self.groups.names))
        }
        groups["foreign"] = [i for i, belonging in enumerate(table) if not belonging.is_made]
        for group, places in groups.items():
            if places:
                self._draw(place / f"{group}.png", table, places, found, read)
        made = np.array([belonging.is_made for belonging in table])
        labels = np.array([belonging.cluster for belonging in table], np.int32)
        figure = errors_by_cluster(
            (sure.held.errors, sure.labels),
            (found.errors, labels, made),
            [f"cluster {name or c}" for c, name in enumerate(self.groups.names)],
            sure.limits.errors,
            f"{place.name}: {made.sum()} of {len(made)} are such as the generator makes",
        )
        write_atomically(place / f"{FIGURE}.png", figure.png)
        write_atomically(place / f"{FIGURE}.pdf", figure.pdf)

    def _draw(
        self, path: Path, table: list[Belonging], places: list[int], found: Found, read: Any
    ) -> None:
        order = sorted(places, key=lambda i: (-table[i].margin, table[i].file))
        shown, first = order[:PAIRS], table[order[0]]
        captions = [
            f"{table[i].file}\nmargin {table[i].margin:.2f}, deeper than {table[i].depth:.0%}\n"
            f"error {table[i].error:.3f}, features {table[i].encoder_features:.3f}"
            for i in shown
        ]
        title = f"cluster {first.shown}" if first.is_made else FOREIGN
        count = f"{len(shown)} of {len(order)}" if len(shown) < len(order) else f"{len(order)}"
        count += " image" if len(order) == 1 else " images"
        reconstructions = self.run.generator.images(found.latents[shown])
        title = f"{title}: {count}, each beside its reconstruction, by falling margin"
        write_atomically(path, to_png(pairs(read(shown), reconstructions, captions, title)))


def assign_to_labels(training: TrainingRun, interrupts: Interrupts, images: Path) -> str:
    """Say which label of a trained generator the images of a folder have; see `AssignStage`.

    Args:
        training: finished, opened for writing.
        interrupts: asked between units of work.
        images: the folder.

    Raises:
        UserError: as `LabelledRun` and `AssignStage.run_all`.
        Interrupted: asked to stop; saved.
    """
    run = LabelledRun(training)
    maker = Maker(run.manifests, Metrics(run.folder.metrics))
    return AssignStage(run, Labels(run.num_labels), maker, interrupts).run_all(images)


def name_of(folder: Path) -> str:
    """Return what a folder's images are called in a run's folder.

    Example:
        >>> name_of(Path("/home/me/my photos.2024/"))
        'my-photos-2024'
    """
    return re.sub(r"[^\w-]+", "-", folder.resolve().name).strip("-") or "images"


def as_text(table: Sequence[Belonging]) -> str:
    """Lay out the table, a line an image, and a line a cluster below."""
    width = min(40, max(len(belonging.file) for belonging in table))
    names = max(7, *(len(belonging.shown) for belonging in table))
    lines = [
        f"{'image':<{width}}  {'cluster':<{names}} {'margin':>8} {'deeper than':>12} "
        f"{'right of such':>14} {'error':>7} {'above':>6} {'features':>9}"
    ]
    for one in table[:TABLE_LINES]:
        right = f"{one.right}/{one.like}" if one.is_made else "-"
        lines.append(
            f"{one.file[:width]:<{width}}  {one.shown:<{names}} {one.margin:>8.3f} "
            f"{one.depth:>12.0%} {right:>14} {one.error:>7.4f} {one.error_above:>6.0%} "
            f"{one.encoder_features:>9.4f}"
            f"{'' if one.is_made else f'  {FOREIGN}'}"
        )
    if len(table) > TABLE_LINES:
        lines.append(f"... and {len(table) - TABLE_LINES} more")
    for shown in sorted({one.shown for one in table if one.is_made}):
        own = [one.error for one in table if one.shown == shown and one.is_made]
        lines.append(f"cluster {shown}: {len(own)}, median error {np.median(own):.4f}")
    foreign = [one.error for one in table if not one.is_made]
    if foreign:
        lines.append(f"{FOREIGN}: {len(foreign)}, median error {np.median(foreign):.4f}")
    return "\n".join(lines)
