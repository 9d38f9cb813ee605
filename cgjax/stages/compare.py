"""Samplers and baselines side by side, in one table that hides nothing.

Every method is measured on the same footing: latents of a cluster, their images, once. Beside how
often the judge sees the asked attribute stands how far the images are from the cluster's true
members, because either alone is easy: the prior has the members' variety, and the middle of a
cluster has its attribute.

The direction baselines (SeFa, GANSpace) move draws of the prior. Which direction, and which way
along it, is chosen by the judge on a selection set; the table is made on other latents.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Float, PRNGKeyArray

from cgjax.config import plain as configuration
from cgjax.directions.edits import Directions
from cgjax.directions.ganspace import fit_ganspace
from cgjax.directions.sefa import fit_sefa
from cgjax.errors import UserError
from cgjax.evaluation import fidelity
from cgjax.evaluation.compare_table import SAME_CODES, Row, as_line, to_csv
from cgjax.evaluation.distances import (
    kid,
    precision_recall_density_coverage,
    wasserstein1,
)
from cgjax.evaluation.diversity import (
    mean_pairwise_distance,
    norm_ratio,
    participation_ratio,
)
from cgjax.evaluation.intervals import bootstrap_interval, judged_accuracy, wilson_interval
from cgjax.evaluation.judges import Judge, load_judge
from cgjax.figures import sheets as figures
from cgjax.figures.compare import plot
from cgjax.regions.clustering import WHOLE, MarginRange
from cgjax.run.run import Run
from cgjax.runtime.files import write_atomically, write_json
from cgjax.runtime.keys import named_key
from cgjax.samplers.base import Sampler
from cgjax.samplers.verify import draw_unverified


class Method(NamedTuple):
    """One line of the table before it is measured.

    Attributes:
        name: of the sampler or baseline.
        setting: what of it, in words.
        draw: (key, cluster, num) -> latents and the acceptance of the check, or None.
        training_s: what it took to fit, or None.
        codes_of: setting of the same sampler whose random numbers it takes; None for its own.
    """

    name: str
    setting: str
    draw: Callable[[PRNGKeyArray, int, int], tuple[np.ndarray, float | None]]
    training_s: float | None
    codes_of: str | None = None


class Attribute:
    """What the judge is asked: does an image show a cluster's end of an attribute?

    Attributes:
        judge: reads it off images.
        name: one of the judge's attributes.
        centre: its neutral value.
        threshold: by how much an image must lie on the asked side of the centre.
        signs: for each cluster the side that its members lie on, +1 or -1.
    """

    def __init__(self, judge: Judge, name: str, centre: float, threshold: float):
        if name not in judge.attributes:
            raise UserError(
                f"--config.compare.attribute={name}: the judge {judge.name} knows "
                f"{', '.join(judge.attributes)}"
            )
        self.judge, self.name = judge, name
        self.centre, self.threshold = centre, threshold
        self.signs: list[int] = []

    def values(self, images: Float[np.ndarray, "n s s c"]) -> Float[np.ndarray, " n"]:
        """Judge images; NaN where there is no face."""
        return self.judge(images)[self.name]

    def is_right(self, values: np.ndarray, sign: int) -> np.ndarray:
        """Whether judged values lie on a side, by the threshold."""
        return sign * (values - self.centre) >= self.threshold


class Comparison:
    """Measures the methods of one run; every line is kept as soon as it is measured."""

    def __init__(self, run: Run, costs: dict[str, Any], check: Callable[[], None] = lambda: None):
        """Prepare.

        Args:
            run: with its samplers fitted.
            costs: the result of the stage that fitted them: {name: {"seconds"}}.
            check: called between lines; may raise to stop.
        """
        self.run, self.costs, self.check = run, costs, check
        self.settings: dict[str, Any] = run.config["compare"]
        self.key = named_key(run.root_key, "compare")
        self.num = int(self.settings["num"])
        self.margin_ranges = [MarginRange.parse(margin) for margin in self.settings["margins"]]
        self.attribute: Attribute | None = None
        if self.settings["judge"] is not None:
            self.attribute = Attribute(
                load_judge(self.settings["judge"]),
                self.settings["attribute"],
                self.settings["centre"],
                self.settings["threshold"],
            )
        self.fingerprint = self._fingerprint()
        self.path = run.folder.root / "compare.json"

    def _fingerprint(self) -> str:
        """Hash what a line depends on: everything but which margins and alphas have a line."""
        names = ("generator", "layer", "latents", "cluster", "samplers", "compare", "evaluate")
        choices = dict.fromkeys(("margins", "alphas", "dialled", "accuracy"))
        settings = self.settings | choices | {"middle_alpha": self._middle_alpha()}
        config = self.run.config | {"compare": settings}
        return configuration.fingerprint(config, (*names, "seed"))

    def _middle_alpha(self) -> float:
        return float(np.median(self.settings["alphas"]))

    def measure_all(self) -> list[Row]:
        """Measure every method on every cluster and write table, JSON and figure.

        Lines of an earlier call are kept; the table has those that the settings now ask for.
        """
        known = {(row["method"], row["setting"], row["cluster"]): row for row in self._load()}
        rows: list[Row] = []
        self._prepare()
        for method in self._methods():
            for c in range(self.run.clusters.num):
                place = (method.name, method.setting, c)
                if place not in known:
                    self.check()
                    try:
                        known[place] = self._measure(method, c)
                    except UserError as error:
                        logging.warning("%s, %s, cluster %d: %s", *place, error)
                        continue
                    self._save(list(known.values()))
                    logging.info("compare: %s", as_line(known[place]))
                rows.append(known[place])
        self._save(rows)
        write_atomically(self.run.folder.root / "compare.csv", to_csv(rows).encode())
        self.run.folder.figures.mkdir(parents=True, exist_ok=True)
        write_atomically(self.run.folder.figures / "compare.png", figures.to_png(plot(rows)))
        return rows

    def _load(self) -> list[Row]:
        try:
            saved = json.loads(self.path.read_text())
            return list(saved["rows"]) if saved["fingerprint"] == self.fingerprint else []
        except (OSError, ValueError, KeyError):
            return []

    def _save(self, rows: list[Row]) -> None:
        content = {"fingerprint": self.fingerprint, "rows": rows}
        write_json(self.path, content)

    def _prepare(self) -> None:
        """Draw the held-out members, judge them, and see which way each cluster faces."""
        run, evaluate = self.run, self.run.config["evaluate"]
        self.reference = fidelity.make_reference(
            run,
            named_key(self.key, "reference"),
            num=self.num,
            components=evaluate["components"],
            prior_images=evaluate["prior_images"],
            features=evaluate["features"],
        )
        self.floors = [self.reference.floor(c) for c in range(run.clusters.num)]
        self.judged: list[np.ndarray] = []
        if self.attribute is not None:
            for latents in self.reference.latents:
                values = self.attribute.values(run.generator.images(latents[: self.num]))
                self.judged.append(values[~np.isnan(values)])
                above = np.median(self.judged[-1]) >= self.attribute.centre
                self.attribute.signs.append(1 if above else -1)

    def _methods(self) -> Iterator[Method]:
        yield Method("members", "true, held out", self._members, None)
        run = self.run
        for name in run.sampler_names:
            seconds = self.costs.get(name, {}).get("seconds")
            sampler = run.fitted(name).sampler
            always = sampler.always_verified
            if not always:
                yield Method(name, "unverified", self._sampler(name, verify=False), seconds)
            if run.clusters.num == 1 and getattr(sampler, "starts_at_prior", False):
                # What one draw of the prior scores varies by more than the gap looked for: the
                # prior of the very same codes stands beside the sampler.
                yield Method(name, SAME_CODES, self._untrained(sampler), None, "unverified")
            dialled = name in self.settings["dialled"]
            for margin_range in self.margin_ranges if dialled else (WHOLE,):
                setting = (
                    "verified" if margin_range == WHOLE else f"verified, margin {margin_range}"
                )
                yield Method(name, setting, self._sampler(name, margin_range=margin_range), seconds)
        if self.attribute is not None and self.settings["directions"]:
            yield from self._directions()

    def _untrained(self, sampler: Sampler) -> Any:
        state = sampler.init(named_key(self.key, "untrained"), self.run.members)

        def draw(key: PRNGKeyArray, c: int, num: int) -> tuple[np.ndarray, None]:
            def propose(key: PRNGKeyArray, n: int) -> Any:
                return sampler.sample(state, key, c, n)

            return draw_unverified(propose, key, num, batch=self.run.generator.batch), None

        return draw

    def _members(self, key: PRNGKeyArray, cluster: int, num: int) -> tuple[np.ndarray, None]:
        return self.reference.latents[cluster][-num:], None

    def _sampler(self, name: str, *, verify: bool = True, margin_range: MarginRange = WHOLE) -> Any:
        def draw(key: PRNGKeyArray, c: int, num: int) -> tuple[np.ndarray, float | None]:
            latents, cost = self.run.draw(
                key, c, num, sampler=name, verify=verify, margin_range=margin_range
            )
            return latents, cost.acceptance if cost else None

        return draw

    def _directions(self) -> Iterator[Method]:
        """Yield SeFa and GANSpace, both forms, every alpha, along the direction the judge chose."""
        run, gen = self.run, self.run.generator.gen
        fits: tuple[tuple[str, Callable[[], Directions]], ...] = (
            ("sefa", lambda: fit_sefa(gen, num_directions=self.settings["directions"])),
            (
                "ganspace",
                lambda: fit_ganspace(
                    gen,
                    run.generator.layer,
                    key=named_key(self.key, "ganspace"),
                    num_latents=self.settings["ganspace_latents"],
                    num_components=self.settings["directions"],
                ),
            ),
        )
        for name, fit in fits:
            started = time.monotonic()
            try:
                directions = fit()
            except UserError as error:
                logging.warning("no %s: %s", name, error)
                continue
            seconds = time.monotonic() - started
            chosen = self._choose(name, directions)
            for form in ("shift", "set"):
                for alpha in self.settings["alphas"]:
                    signs = [s for _, s in chosen]
                    along = f"direction {chosen[0][0]}, {form} {alpha:g}"
                    if len({i for i, _ in chosen}) > 1:
                        along = f"directions {[i for i, _ in chosen]}, {form} {alpha:g}"
                    draw = self._edited(directions, [i for i, _ in chosen], signs, alpha, form)
                    yield Method(name, along, draw, seconds)

    def _choose(self, name: str, directions: Directions) -> list[tuple[int, int]]:
        """Return for each cluster the direction and sign with the most accurate selection set."""
        assert self.attribute is not None
        num, alpha = self.settings["selection"], self._middle_alpha()
        z = np.asarray(self._prior(named_key(self.key, "selection"), num))
        best = [(-1.0, 0, 1)] * self.run.clusters.num
        for index in range(len(directions.vectors)):
            for sign in (1, -1):
                self.check()
                values = self.attribute.values(
                    self.run.generator.images(
                        np.asarray(self._edit(directions, z, index, sign * alpha))
                    )
                )
                for c, side in enumerate(self.attribute.signs):
                    accuracy = float(np.mean(self.attribute.is_right(values, side)))  # NaN: wrong
                    best[c] = max(best[c], (accuracy, index, sign), key=lambda b: b[0])
        for c, (accuracy, index, sign) in enumerate(best):
            logging.info(
                "%s, cluster %d: direction %d, sign %+d (%.3f on the selection set)",
                *(name, c, index, sign, accuracy),
            )
        return [(index, sign) for _, index, sign in best]

    def _prior(self, key: PRNGKeyArray, num: int) -> Any:
        return self.run.generator.sample_latents(key, num)

    def _edit(
        self, directions: Directions, z: np.ndarray, index: int, alpha: float, form: str = "shift"
    ) -> Any:
        normalise = self.run.generator.normalizes_latent
        return directions.edit(z, index, alpha, form=form, normalise=normalise)  # type: ignore[arg-type]

    def _edited(
        self, directions: Directions, indices: list[int], signs: list[int], alpha: float, form: str
    ) -> Any:
        def draw(key: PRNGKeyArray, c: int, num: int) -> tuple[np.ndarray, None]:
            z = self._prior(key, num)
            return np.asarray(self._edit(directions, z, indices[c], signs[c] * alpha, form)), None

        return draw

    def _measure(self, method: Method, c: int) -> Row:
        """Draw latents of a cluster by a method, make their images, and measure both."""
        run, num = self.run, self.num
        key = named_key(self.key, "test", method.name, method.codes_of or method.setting, c)
        latents, acceptance = method.draw(key, c, num)
        timed = max(1, num // 4)
        started = time.perf_counter()
        method.draw(jax.random.fold_in(key, 1), c, timed)  # again, now that it is compiled
        sampling = (time.perf_counter() - started) / timed
        started = time.perf_counter()
        images = run.generator.images(latents)
        imaging = time.perf_counter() - started
        inside = int(run.are_members(latents, c).sum())
        low, high = wilson_interval(inside, num)
        members, (held_out, _) = self.reference.latents[c][:num], self.reference.halves(c)
        extractor = self.reference.extractor
        features = extractor(latents if extractor.input == "latents" else images)
        # The members' own line is the second half of the reference: compared with the first alone.
        against = self.reference.halves(c)[: 1 if method.name == "members" else 2]
        distance, interval = fidelity.distance_to(features, *against)
        manifold = precision_recall_density_coverage(held_out, features)
        row: Row = {
            "method": method.name,
            "setting": method.setting,
            "cluster": c,
            "membership": inside / num,
            "membership_low": low,
            "membership_high": high,
            "feature": extractor.name,
            "frechet": distance,
            "frechet_low": interval.low,
            "frechet_high": interval.high,
            "frechet_floor": self.floors[c],
            "ratio": distance / self.floors[c],
            "kid": kid(features, held_out).mean,
            **manifold._asdict(),
            "norm_ratio": norm_ratio(latents, members),
            "effective_rank": participation_ratio(latents) / participation_ratio(members),
            "mean_distance": mean_pairwise_distance(features) / mean_pairwise_distance(held_out),
            "acceptance": acceptance,
            "sampling_ms": None if method.name == "members" else 1e3 * sampling,
            "image_ms": 1e3 * imaging / num,
            "training_s": method.training_s,
            "num": num,
        }
        return row | ({} if self.attribute is None else self._judge(images, c))

    def _judge(self, images: np.ndarray, c: int) -> Row:
        assert self.attribute is not None
        sign, attribute = self.attribute.signs[c], self.attribute
        values = attribute.values(images)
        judged = judged_accuracy(values, lambda found: attribute.is_right(found, sign))
        seen = values[~np.isnan(values)]
        side = f"{attribute.name} {'>=' if sign > 0 else '<='} "
        w1: Row = {}
        if len(seen):
            spread = bootstrap_interval(
                wasserstein1, seen, self.judged[c], num_resamples=200, method="normal"
            )
            w1 = {
                "w1": wasserstein1(seen, self.judged[c]),
                "w1_low": spread.low,
                "w1_high": spread.high,
            }
        return {
            "judge": attribute.judge.name,
            "attribute": side + f"{attribute.centre + sign * attribute.threshold:g}",
            "accuracy": judged.accuracy,
            "accuracy_low": judged.interval.low,
            "accuracy_high": judged.interval.high,
            "found": judged.found,
            "strict": judged.strict,
            "strict_low": judged.strict_interval.low,
            "strict_high": judged.strict_interval.high,
            **w1,
        }
