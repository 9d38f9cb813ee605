"""The stage that assigns the user's own images to clusters, and says how reliable that is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cgjax.evaluation.lpips import Lpips
from cgjax.figures.inversion import errors_by_cluster, pairs
from cgjax.inversion.held_out import NEIGHBOURS, num_right
from cgjax.inversion.inverter import Inverted
from cgjax.run.artifacts import declare_assigned
from cgjax.run.labelled import LabelledRun
from cgjax.run.places import assigned_name, assigned_place
from cgjax.run.training import TrainingRun
from cgjax.runtime.array_files import write_npy
from cgjax.runtime.csv_text import as_csv
from cgjax.runtime.files import as_utf8, make_folder, write_atomically
from cgjax.runtime.log import Metrics, Progress
from cgjax.runtime.photos import Photo, check_channels, find_photos, read_photos
from cgjax.runtime.png import to_png
from cgjax.runtime.signals import Interrupts
from cgjax.stages.graph import Maker
from cgjax.stages.groups import FOREIGN, Groups, Labels, Reliability, reliability_of
from cgjax.stages.inversion import BATCH, InversionStage, Invertible, ReadImages

TABLE_LINES = 60
"""The most images listed on the terminal; `assign.csv` lists all."""

PAIRS = 48
"""The most images on a contact sheet: those with the largest margins."""

TABLE, FIGURE = "assign.csv", "errors"


class Belonging(NamedTuple):
    """Which cluster an image belongs to; a line of `assign.csv`.

    Attributes:
        file: the image's name.
        cluster: its id.
        name: that a person gave the cluster; empty if none.
        margin: distance to the nearest other centroid minus that to its own; for labels the
            encoder's probability of its own minus that of the likeliest other.
        depth: share of the cluster's members with a smaller margin.
        right: of the `like` held-out images with the nearest margins, how many were assigned
            correctly.
        like: the number of those images.
        error: mean absolute difference to the reconstruction, as a share of the pixels' range.
        error_above: share of the held-out images with a smaller error.
        encoder_features: mean squared difference of the encoder's features.
        is_made: whether both differences are within the limits of the generator's own images.
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
    """Assigns the images of folders, and writes a table and pictures."""

    def __init__(self, run: Invertible, groups: Groups, maker: Maker, interrupts: Interrupts):
        """Prepare.

        Args:
            run: whose generator inverts the images.
            groups: what the images are assigned to.
            maker: of the run's artifacts.
            interrupts: asked between batches.
        """
        self.run, self.groups, self.maker = run, groups, maker
        self._inversion, self._interrupts = InversionStage(run, maker, interrupts), interrupts

    def run_all(self, folder: Path) -> str:
        """Assign the images of a folder; return the table as text.

        Images that were inverted before, under any name, are not inverted again.

        Args:
            folder: with the images.

        Raises:
            UserError: a folder without images, an image that cannot be read, a generator whose
                images are neither grey nor colour; as `InversionStage`.
            Interrupted: asked to stop; saved.
        """
        generator, settings = self.run.generator, self.run.config["assign"]
        photos = find_photos(folder, self._interrupts.check)
        size, _, channels = generator.image_shape
        check_channels(channels)

        def read(places: Sequence[int]) -> Float[np.ndarray, "n s s c"]:
            return read_photos([photos[i] for i in places], size, channels)

        name = self._name(folder)
        artifact, place = assigned_name(name), self.run.folder.root / assigned_place(name)
        declare_assigned(self.run.manifests.graph, self.run.config, name)
        inverter = self._inversion.inverter()
        held_out = self._inversion.held_out(inverter)
        reliability = reliability_of(self.groups, held_out, settings["quantile"])
        # Both change an inversion: how many further starts there are, and the limit beyond which an
        # image gets them.
        restarts = f"{settings['restarts']} {settings['quantile']}"
        ids = [f"{photo.digest} {restarts}" for photo in photos]
        inverted = self._inversion.invert(inverter, ids, read, as_utf8(folder), reliability.limits)
        table = self._table(photos, inverted, reliability)
        found: dict[str, Any] = {"ids": ids, "table": [list(row) for row in table]}
        found["folder"] = str(folder.resolve())
        lines = [str(reliability)]
        if inverter.function is None:
            lines.append("this generator cannot be differentiated: by the encoder alone")
        lines += ["", as_text(table)]
        distances = None
        if settings["lpips"]:
            measure = Lpips(settings["lpips"])
            distances = found["lpips"] = self._distances(measure, ids, inverted, read, artifact)
            mean = f"{np.mean(distances):.4f}"
            lines.append(f"LPIPS ({measure.trunk}): mean {mean} of {len(table)} images")
        known = self.maker.result(artifact) or {}
        if known | found != known:
            with self.maker.making(artifact) as result:
                result |= found
                self._write(place, table, inverted, read, reliability, distances)
        return "\n".join([*lines, "", f"{place}/{TABLE}"])

    def _name(self, folder: Path) -> str:
        """Return the name of a folder's images; folders of one name get different ones."""
        own, place = name_of(folder), str(folder.resolve())
        for name in itertools.chain([own], (f"{own}-{number}" for number in itertools.count(2))):
            last = self.run.manifests.last_result(assigned_name(name)) or {}
            if last.get("folder", place) == place:
                break
        return name

    def _table(
        self, photos: list[Photo], inverted: Inverted, reliability: Reliability
    ) -> list[Belonging]:
        names, members = self.groups.names, self.groups.members(reliability)
        labels, margins = self.groups.of(inverted.latents, inverted.guesses)
        right = num_right(margins, reliability.margins, reliability.is_right)
        errors_above = reliability.held.share_below(inverted.errors)
        is_made = reliability.limits.keeps(inverted.errors, inverted.features)
        return [
            Belonging(
                as_utf8(photo.path.name),
                int(c),
                names[c],
                round(float(margins[i]), 4),
                round(float(np.searchsorted(members[c], margins[i]) / max(1, len(members[c]))), 4),
                int(right[i]),
                min(NEIGHBOURS, len(reliability.margins)),
                round(float(inverted.errors[i]), 5),
                round(float(errors_above[i]), 4),
                round(float(inverted.features[i]), 4),
                bool(is_made[i]),
            )
            for i, (photo, c) in enumerate(zip(photos, labels, strict=True))
        ]

    def _distances(
        self, measure: Lpips, ids: list[str], inverted: Inverted, read: ReadImages, artifact: str
    ) -> list[float]:
        """Return how far images are from their reconstructions, as known or measured."""
        known = self.maker.result(artifact) or {}
        if known.get("ids") == ids:
            distances: list[float] = known["lpips"]
            return distances
        progress, found = Progress("LPIPS", len(ids)), np.zeros(0, np.float32)
        for start in range(0, len(ids), BATCH):
            some = range(start, min(start + BATCH, len(ids)))
            made = self.run.generator.images(inverted.latents[some])
            found = np.append(found, measure(read(some), made))
            progress.update(len(found))
            self._interrupts.check("the inversions are kept, and nothing of LPIPS")
        return [round(float(distance), 5) for distance in found]

    def _write(
        self,
        place: Path,
        table: list[Belonging],
        inverted: Inverted,
        read: ReadImages,
        reliability: Reliability,
        distances: list[float] | None,
    ) -> None:
        """Write the table, the latents, a contact sheet per cluster, and the figure of errors."""
        make_folder(place)
        rows: list[dict[str, Any]] = [belonging._asdict() for belonging in table]
        for row, distance in zip(rows, distances or (), strict=distances is not None):
            row["lpips"] = distance
        columns = (*Belonging._fields, *(("lpips",) if distances is not None else ()))
        write_atomically(place / TABLE, as_csv(rows, columns).encode())
        write_npy(place / "latents.npy", inverted.latents)
        groups = {
            f"cluster-{c}": [i for i, b in enumerate(table) if b.cluster == c and b.is_made]
            for c in range(len(self.groups.names))
        }
        groups["foreign"] = [i for i, belonging in enumerate(table) if not belonging.is_made]
        for group, places in groups.items():
            if places:
                self._draw(place / f"{group}.png", table, places, inverted, read)
        is_made = np.array([belonging.is_made for belonging in table])
        labels = np.array([belonging.cluster for belonging in table], np.int32)
        figure = errors_by_cluster(
            (reliability.held.errors, reliability.labels),
            (inverted.errors, labels, is_made),
            [f"cluster {name or c}" for c, name in enumerate(self.groups.names)],
            reliability.limits.errors,
            f"{place.name}: {is_made.sum()} of {len(is_made)} could be made by the generator",
        )
        write_atomically(place / f"{FIGURE}.png", figure.png)
        write_atomically(place / f"{FIGURE}.pdf", figure.pdf)

    def _draw(
        self,
        path: Path,
        table: list[Belonging],
        places: list[int],
        inverted: Inverted,
        read: ReadImages,
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
        reconstructions = self.run.generator.images(inverted.latents[shown])
        title = f"{title}: {count}, each beside its reconstruction, by decreasing margin"
        write_atomically(path, to_png(pairs(read(shown), reconstructions, captions, title)))


def assign_to_labels(training: TrainingRun, interrupts: Interrupts, images: Path) -> str:
    """Assign the images of a folder to the labels of a trained generator; see `AssignStage`.

    Args:
        training: finished, with its folder open for writing.
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
    """Return the name of a folder's images in a run's folder.

    Example:
        >>> name_of(Path("/home/me/my photos.2024/"))
        'my-photos-2024'
    """
    name = re.sub(r"[^\w-]+", "-", folder.resolve().name)
    # Files of the run are named after it, and a name has at most 255 bytes.
    return name.encode()[:200].decode(errors="ignore").strip("-") or "images"


def as_text(table: Sequence[Belonging]) -> str:
    """Lay out the table: a line per image, then a line per cluster."""
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
