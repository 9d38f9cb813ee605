"""Samplers and baselines side by side, in one table that hides nothing.

Every method is measured in the same way: latents of a cluster, their images, once. The table shows
how often the judge sees the attribute and how far the images are from the cluster's true members,
because either alone is easy: the prior has the members' variety, and the middle of a cluster has
its attribute.

The direction baselines (SeFa, GANSpace) move draws of the prior. The judge chooses the direction
and the sign on a selection set; the table is made on other latents.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import PRNGKeyArray

from cgjax.config.plain import digest
from cgjax.errors import UserError
from cgjax.evaluation import fidelity
from cgjax.evaluation.attribute import Side, attribute_of
from cgjax.evaluation.compare_table import COLUMNS, SAME_CODES, Row, as_line, to_text
from cgjax.evaluation.distances import kid, precision_recall_density_coverage
from cgjax.evaluation.diversity import mean_pairwise_distance, norm_ratio, participation_ratio
from cgjax.figures.plots import compared
from cgjax.numerics.intervals import wilson_interval
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange
from cgjax.run.artifacts import FEATURE, drawing_leaves
from cgjax.run.places import fit_name
from cgjax.run.run import Run
from cgjax.runtime.csv_text import as_csv
from cgjax.runtime.files import make_folder, read_sealed, write_atomically, write_sealed
from cgjax.runtime.keys import named_key
from cgjax.samplers.base import Sampler
from cgjax.samplers.verify import draw_unverified
from cgjax.stages.baselines import DirectionBaselines, middle_alpha
from cgjax.stages.conditional import LABEL_COLUMNS, ConditionalBaselines, labels_as_text
from cgjax.stages.evaluate import reference_of
from cgjax.stages.graph import Maker
from cgjax.stages.methods import ComparedMethod, Drawer

JUDGED = ("num", "judge", "attribute", "centre", "threshold")
"""The settings of `config.compare` that every line depends on."""


class DrawnByMethod(NamedTuple):
    """Latents that a method drew for a cluster.

    Attributes:
        latents: (n, d).
        acceptance: of the membership check, or None.
        seconds: per latent.
    """

    latents: np.ndarray
    acceptance: float | None
    seconds: float


def _place(row: Row) -> tuple[str, str, int]:
    return row["method"], row["setting"], row["cluster"]


class CompareStage:
    """Measures the methods of one run; every line is saved as soon as it is measured."""

    def __init__(self, run: Run, maker: Maker, check: Callable[..., None]):
        """Prepare.

        Args:
            run: with its samplers fitted.
            maker: of its artifacts.
            check: called between lines, with what is kept if it raises to stop.
        """
        self.run, self.maker, self.check = run, maker, check
        self.settings: dict[str, Any] = run.config["compare"]
        self.key = named_key(run.root_key, "compare")
        self.num = int(self.settings["num"])
        self.margin_ranges = [MarginRange.parse(margin) for margin in self.settings["margins"]]
        self.attribute = attribute_of(self.settings)

    def run_all(self) -> str:
        """Measure every method on every cluster; write table, lines and figure.

        Lines of an earlier call are reused if nothing that they depend on has changed; the table
        has the lines that the settings ask for now.

        Returns:
            The table as text.
        """
        folder = self.run.folder
        if self.maker.result("compare") is not None:
            return (folder.root / "compare.txt").read_text().rstrip("\n")
        with self.maker.making("compare"):
            rows = self._measure_all()
            text = to_text(rows, self.settings["accuracy"])
            if self.conditional is not None:
                labels = self.conditional.table()
                text = f"{text}\n\n{labels_as_text(labels)}"
                table = as_csv(labels, LABEL_COLUMNS).encode()
                write_atomically(folder.root / "compare_labels.csv", table)
            make_folder(folder.figures)
            write_atomically(folder.root / "compare.csv", as_csv(rows, COLUMNS).encode())
            write_atomically(folder.root / "compare.txt", f"{text}\n".encode())
            picture = compared(rows)
            write_atomically(folder.figures / "compare.png", picture.png)
            write_atomically(folder.figures / "compare.pdf", picture.pdf)
        return text

    def _measure_all(self) -> list[Row]:
        known = {(*_place(row), row.get("key")): row for row in self._load()}
        rows: list[Row] = []
        self._prepare()
        for method in self._methods():
            key = self._key(method)
            for c in range(self.run.clustering.num):
                place = (method.name, method.setting, c)
                if (*place, key) not in known:
                    self.check("the measured lines are kept")
                    try:
                        drawn = self._draw(method, c)
                    except UserError as error:  # such as a part of a cluster that is too rare
                        logging.warning("%s, %s, cluster %d: %s", *place, error)
                        continue
                    known[*place, key] = self._measure(method, c, drawn) | {"key": key}
                    self._save(list(known.values()))
                    logging.info("compare: %s", as_line(known[*place, key]))
                rows.append(known[*place, key])
        self._save(rows)
        return [{name: value for name, value in row.items() if name != "key"} for row in rows]

    def _key(self, method: ComparedMethod) -> str:
        """Hash what a line depends on: its own sampler and settings, not those of the others."""
        graph, settings = self.run.manifests.graph, self.settings
        reads = {name: settings[name] for name in JUDGED}
        if method.imagine is not None:
            reads |= {"selection": settings["selection"], "other": method.identity}
        part = fit_name(method.name)
        if part not in graph:
            part = "cluster"
            reads |= {name: settings[name] for name in ("directions", "selection")}
            reads |= {"ganspace": settings["ganspace_latents"]}
            reads |= {"middle": middle_alpha(settings["alphas"])}
        else:
            reads |= drawing_leaves(self.run.config, method.name)
        reads |= {name: self.run.config["evaluate"][name] for name in FEATURE}
        return digest([reads, graph[part].key])

    def _load(self) -> list[Row]:
        try:
            rows = (read_sealed(self.run.folder.compared) or {})["rows"]
            return [row for row in rows if {"method", "setting", "cluster"} <= row.keys()]
        except (KeyError, TypeError, AttributeError):
            return []

    def _save(self, rows: list[Row]) -> None:
        write_sealed(self.run.folder.compared, {"rows": rows})

    def _prepare(self) -> None:
        """Draw and judge the held-out members, which show each cluster's side of the attribute."""
        run = self.run
        self.reference = reference_of(run, named_key(self.key, "reference"), num=self.num)
        self.sides: list[Side] = []
        if self.attribute is not None:
            members = (latents[: self.num] for latents in self.reference.latents)
            self.sides = [self.attribute.side_of(run.generator.images(z)) for z in members]
            for c, side in enumerate(self.sides):
                if not len(side.members):
                    logging.warning(
                        "%s finds no %s in %d members of cluster %d: it gets no accuracy",
                        *(side.attribute.judge.name, side.attribute.name, self.num, c),
                    )
        self.conditional = (
            ConditionalBaselines(run, self.sides, self.key, self.check) if run.conditional else None
        )

    def _methods(self) -> Iterator[ComparedMethod]:
        yield ComparedMethod("members", "true, held out", self._members, None)
        run = self.run
        for name in run.sampler_names:
            seconds = (self.maker.result(fit_name(name)) or {}).get("seconds")
            sampler = run.samplers.fitted(name).sampler
            if not sampler.always_verified:
                yield ComparedMethod(name, "unverified", self._sampler(name, verify=False), seconds)
            if run.clustering.num == 1 and sampler.starts_at_prior:
                # The scores of draws of the prior vary by more than the gap of interest, so the
                # prior is measured on the very codes that the sampler uses.
                yield ComparedMethod(name, SAME_CODES, self._untrained(sampler), None, "unverified")
            is_dialled = name in self.settings["dialled"]
            for margin in self.margin_ranges if is_dialled else (WHOLE,):
                setting = "verified" if margin == WHOLE else f"verified, margin {margin}"
                yield ComparedMethod(name, setting, self._sampler(name, margin=margin), seconds)
        if self.sides and self.settings["directions"]:
            yield from DirectionBaselines(run, self.sides, self.key, self.check).methods()
        if self.conditional is not None:
            yield from self.conditional.methods()

    def _untrained(self, sampler: Sampler) -> Drawer:
        state = sampler.init(named_key(self.key, "untrained"), self.run.members(sampler))

        def draw(key: PRNGKeyArray, c: int, num: int) -> tuple[np.ndarray, None]:
            def propose(key: PRNGKeyArray, n: int) -> Any:
                return sampler.sample(state, key, c, n)

            return draw_unverified(propose, key, num), None

        return draw

    def _members(self, key: PRNGKeyArray, cluster: int, num: int) -> tuple[np.ndarray, None]:
        return self.reference.latents[cluster][-num:], None

    def _sampler(self, name: str, *, verify: bool = True, margin: MarginRange = WHOLE) -> Drawer:
        def draw(key: PRNGKeyArray, c: int, num: int) -> tuple[np.ndarray, float | None]:
            region = ClusterRegion(self.run.clustering, c, margin)
            latents, cost = self.run.draw(key, region, num, sampler=name, verify=verify)
            return latents, cost.acceptance if cost else None

        return draw

    def _draw(self, method: ComparedMethod, c: int) -> DrawnByMethod:
        """Draw latents of a cluster by a method."""
        key = named_key(self.key, "test", method.name, method.codes_of or method.setting, c)
        latents, acceptance = method.draw(key, c, self.num)
        timed = max(1, self.num // 4)
        started = time.perf_counter()
        method.draw(jax.random.fold_in(key, 1), c, timed)  # again, now that it is compiled
        return DrawnByMethod(latents, acceptance, (time.perf_counter() - started) / timed)

    def _measure(self, method: ComparedMethod, c: int, drawn: DrawnByMethod) -> Row:
        """Measure latents that a method drew for a cluster, and their images."""
        run, num, latents = self.run, self.num, drawn.latents
        started = time.perf_counter()
        imagine = method.imagine
        images = imagine(latents, c) if imagine else run.generator.images(latents)
        imaging = time.perf_counter() - started
        (held_out, _), extractor = self.reference.halves(c), self.reference.extractor
        features = extractor(latents if extractor.input == "latents" else images)
        # The line of the members is the second half of the reference, compared with the first half.
        against = self.reference.halves(c)[: 1 if method.name == "members" else 2]
        distance = fidelity.distance_to(features, *against)
        interval = fidelity.distance_interval(features, *against)
        manifold = precision_recall_density_coverage(held_out, features)
        row: Row = {
            "method": method.name,
            "setting": method.setting,
            "cluster": c,
            "feature": extractor.name,
            "frechet": distance,
            "frechet_low": interval.low,
            "frechet_high": interval.high,
            "frechet_floor": self.reference.floors[c],
            "ratio": distance / self.reference.floors[c],
            "kid": kid(features, held_out).mean,
            **manifold._asdict(),
            "mean_distance": mean_pairwise_distance(features) / mean_pairwise_distance(held_out),
            "acceptance": drawn.acceptance,
            "sampling_ms": None if method.name == "members" else 1e3 * drawn.seconds,
            "image_ms": 1e3 * imaging / num,
            "training_s": method.training_s,
            "num": num,
        }
        row |= {} if imagine else self._of_latents(latents, c)
        return row | (self.sides[c].measure(images) if self.sides else {})

    def _of_latents(self, latents: np.ndarray, c: int) -> Row:
        """Measure latents of the run's own generator."""
        members = self.reference.latents[c][: self.num]
        inside = int(self.run.are_inside(latents, self.run.regions[c]).sum())
        low, high = wilson_interval(inside, len(latents))
        return {
            "membership": inside / len(latents),
            "membership_low": low,
            "membership_high": high,
            "norm_ratio": norm_ratio(latents, members),
            "effective_rank": participation_ratio(latents) / participation_ratio(members),
        }
