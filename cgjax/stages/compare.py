"""Samplers and baselines side by side, in one table that hides nothing.

Every method is measured in the same way: latents of a cluster, their images, once. The table shows
how often the judge sees the attribute and how far the images are from the cluster's true members,
because either alone is easy: the prior has the members' variety, and the middle of a cluster has
its attribute.

The direction baselines (SeFa, GANSpace) move draws of the prior. The judge chooses the direction
and the sign on a selection set; the table is made on other latents.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float, PRNGKeyArray

from cgjax.config.plain import digest, split_texts
from cgjax.errors import UserError
from cgjax.evaluation.attribute import Side, attribute_of
from cgjax.evaluation.compare_table import COLUMNS, SAME_CODES, Row, as_line, to_text
from cgjax.evaluation.fidelity import Reference
from cgjax.figures.plots import draw_comparison
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange
from cgjax.run.artifacts import FEATURE, drawing_leaves
from cgjax.run.places import fit_name
from cgjax.run.run import Run
from cgjax.run.traces import Trace
from cgjax.runtime.csv_text import as_csv
from cgjax.runtime.files import make_folder, read_sealed, write_atomically, write_sealed
from cgjax.runtime.keys import named_key
from cgjax.samplers.base import Sampler
from cgjax.samplers.verify import draw_unverified
from cgjax.stages.baselines import DirectionBaselines, middle_alpha
from cgjax.stages.conditional import LABEL_COLUMNS, ConditionalBaselines, labels_as_text
from cgjax.stages.evaluate import reference_of
from cgjax.stages.graph import Maker
from cgjax.stages.measuring import Measurer, judge
from cgjax.stages.methods import ComparedMethod, Drawer
from cgjax.stages.rare import LeftOut, lower_num

JUDGED = ("num", "judge", "attribute", "centre", "threshold")
"""The settings of `config.compare` that every line depends on."""


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
        # Without margins a dialled sampler has the line that every other sampler has.
        margins = self.settings["margins"] or [0.0]
        self.margin_ranges = [MarginRange.parse(margin) for margin in margins]
        self.attribute = attribute_of(self.settings)
        self.conditional: ConditionalBaselines | None = None

    def run_all(self) -> str:
        """Measure every method on every cluster; write table, lines and figure.

        Lines of an earlier call are reused if nothing that they depend on has changed; the table
        has the lines that the settings ask for now.

        Returns:
            The table as text.
        """
        folder = self.run.folder
        if self.maker.result("compare") is not None:
            return (folder.root / "compare.txt").read_text(encoding="utf-8").rstrip("\n")
        with self.maker.making("compare") as result:
            left_out = LeftOut(self.run)
            rows = self._measure_all(left_out)
            text = to_text(rows, self.settings["accuracy"], self.run.clustering.num)
            if left_out.lines:
                text = "\n".join([text, "", "left out:", *left_out.lines.values()])
            result |= left_out.result
            if self.conditional is not None:
                labels = self.conditional.table()
                text = f"{text}\n\n{labels_as_text(labels)}"
                table = as_csv(labels, LABEL_COLUMNS).encode()
                write_atomically(folder.root / "compare_labels.csv", table)
            make_folder(folder.figures)
            write_atomically(folder.root / "compare.csv", as_csv(rows, COLUMNS).encode())
            write_atomically(folder.root / "compare.txt", f"{text}\n".encode())
            picture = draw_comparison(rows)
            write_atomically(folder.figures / "compare.png", picture.png)
            write_atomically(folder.figures / "compare.pdf", picture.pdf)
        return text

    def _measure_all(self, left_out: LeftOut) -> list[Row]:
        known = {(*_place(row), row.get("key")): row for row in self._load()}
        rows: list[Row] = []
        measurer = self._measurer(left_out)
        clusters = [region.cluster for region in left_out.kept()]
        if self.run.conditional:
            self.conditional = ConditionalBaselines(self.run, measurer.sides, self.key, self.check)
        for method in self._methods(measurer):
            key = self._key(method)
            for c in clusters:
                place = (method.name, method.setting, c)
                if (*place, key) not in known:
                    self._check()
                    try:
                        drawn = measurer.draw(method, c)
                    except UserError as error:  # such as a part of a cluster that is too rare
                        left_out.add("{}, {}, cluster {}".format(*place), error)
                        continue
                    known[*place, key] = measurer.measure(method, c, drawn) | {"key": key}
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
        """Return the lines that were measured by what the user's judge and features are now."""
        try:
            saved = read_sealed(self.run.folder.compared) or {}
            rows, traces = saved["rows"], saved.get("traces", self._traces)
            is_same = traces.keys() == self._traces.keys()
            if not is_same or self.run.manifests.changed_since(traces):
                return []
            return [row for row in rows if {"method", "setting", "cluster"} <= row.keys()]
        except (KeyError, TypeError, AttributeError):
            return []

    def _save(self, rows: list[Row]) -> None:
        traces = {"traces": self._traces} if self._traces else {}
        write_sealed(self.run.folder.compared, {"rows": rows} | traces)

    @property
    def _traces(self) -> dict[str, Trace]:
        return self.run.manifests.traces("compare")

    def _measurer(self, left_out: LeftOut) -> Measurer:
        """Draw and judge the held-out members, which show each cluster's side of the attribute."""
        run = self.run
        reference = reference_of(
            run, named_key(self.key, "reference"), "compare", left_out, self._check
        )
        sides: list[Side] = []
        if self.attribute is not None:
            for c in range(run.clustering.num):
                images = run.generator.image_blocks(self._judged(reference, c))
                sides.append(self.attribute.side_of(judge(self.attribute, images)))
            for c, side in enumerate(sides):
                if not len(side.members):
                    logging.warning(
                        "%s finds no %s in %d members of cluster %d: it gets no accuracy",
                        *(side.attribute.judge.name, side.attribute.name, len(side.judged), c),
                    )
        inside = [functools.partial(run.are_inside, region=region) for region in run.regions]
        return Measurer(run.generator, inside, reference, sides, self.num, self.key)

    def _judged(self, reference: Reference, c: int) -> Float[np.ndarray, "n d"]:
        """Return members to judge: of a cluster that is left out the few that the run has."""
        few = self.run.latents[self.run.clustering.labels == c]
        return reference.latents.get(c, few)[: self.num]

    def _methods(self, measurer: Measurer) -> Iterator[ComparedMethod]:
        run, sides = self.run, measurer.sides
        held_out = _held_out(measurer.reference)
        yield ComparedMethod("members", "true, held out", held_out, is_second_half=True)
        for name in run.sampler_names:
            seconds = (self.maker.result(fit_name(name)) or {}).get("seconds")
            sampler = run.samplers.fitted(name).sampler
            if not sampler.always_verified:
                yield ComparedMethod(name, "unverified", self._sampler(name, verify=False), seconds)
            is_whole = run.clustering.num == 1 and sampler.starts_at_prior
            if is_whole and _is_standard_normal(run.latents):
                # The scores of draws of the prior vary by more than the gap of interest, so the
                # prior is measured on the very codes that the sampler uses.
                untrained = self._untrained(sampler)
                yield ComparedMethod(name, SAME_CODES, untrained, codes_of="unverified")
            is_dialled = name in split_texts(self.settings["dialled"])
            for margin in self.margin_ranges if is_dialled else (WHOLE,):
                setting = "verified" if margin == WHOLE else f"verified, margin {margin}"
                yield ComparedMethod(name, setting, self._sampler(name, margin=margin), seconds)
        if sides and self.settings["directions"]:
            yield from DirectionBaselines(run, sides, self.key, self.check).methods()
        if self.conditional is not None:
            yield from self.conditional.methods()

    def _untrained(self, sampler: Sampler) -> Drawer:
        state = sampler.init(named_key(self.key, "untrained"), self.run.members(sampler))

        def draw(key: PRNGKeyArray, c: int, num: int) -> tuple[np.ndarray, None]:
            def propose(key: PRNGKeyArray, n: int) -> Any:
                return sampler.sample(state, key, c, n)

            return draw_unverified(propose, key, num), None

        return draw

    def _sampler(self, name: str, *, verify: bool = True, margin: MarginRange = WHOLE) -> Drawer:
        def draw(key: PRNGKeyArray, c: int, num: int) -> tuple[np.ndarray, float | None]:
            region = ClusterRegion(self.run.clustering, c, margin)
            instead = lower_num("compare")
            latents, cost = self.run.draw(
                key, region, num, sampler=name, verify=verify, instead=instead, check=self._check
            )
            return latents, cost.acceptance if cost else None

        return draw

    def _check(self) -> None:
        self.check("the measured lines are kept")


def _is_standard_normal(latents: Float[np.ndarray, "n d"]) -> bool:
    """Return whether a prior is the one that samplers start at; BigGAN's is truncated, say."""
    from scipy.stats import kstest  # half a second

    return bool(kstest(latents.ravel()[:1_000_000], "norm").pvalue > 1e-6)


def _held_out(reference: Reference) -> Drawer:
    """Return what "draws" the second half of the held-out members."""

    def draw(key: PRNGKeyArray, c: int, num: int) -> tuple[np.ndarray, None]:
        return reference.latents[c][-num:], None

    return draw
