"""The rows of a comparison for generators with classes, whose class is the cluster.

Which class stands for a cluster is chosen by the judge on a selection set, as directions are; the
table is made on other latents. What every class shows is a table of its own, the paper's Table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import PRNGKeyArray

from cgjax.evaluation.attribute import Side
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.numerics.intervals import wilson_interval
from cgjax.run.conditional import Conditional, load_labels
from cgjax.run.run import Run
from cgjax.runtime.keys import named_key
from cgjax.stages.methods import Drawer, Imaginer, Method

LABEL_COLUMNS = (
    *("generator", "label", "judge", "attribute", "num", "found"),
    *("mean", "sd", "above", "above_low", "above_high"),
)
"""The columns of `compare_labels.csv`: of the values found, the share above the centre."""


class ConditionalBaselines:
    """Generators with classes beside one run."""

    def __init__(self, run: Run, sides: list[Side], key: PRNGKeyArray, check: Callable[..., None]):
        """Prepare.

        Args:
            run: with its clusters.
            sides: for each cluster, the end of the judged attribute that its members lie at.
            key: of the selection set.
            check: called between classes; may raise to stop.
        """
        self.run, self.sides, self.key, self.check = run, sides, key, check
        self._values: dict[str, list[np.ndarray]] = {}

    def methods(self) -> Iterator[Method]:
        """Yield one method a generator, with the class that the judge chose for each cluster."""
        for one in self.run.conditional:
            labels = load_labels(one, self.run.generator)
            values = self._values[one.name] = self._judge(one, labels)
            chosen = [_best(side, values) for side in self.sides]
            for c, label in enumerate(chosen):
                logging.info("%s, cluster %d: class %d", one.name, c, label)
            setting = f"of {len(labels)} classes {chosen}"
            yield Method(
                one.name,
                setting,
                _drawer([labels[label] for label in chosen]),
                None,
                imagine=_imaginer([labels[label] for label in chosen]),
                identity=one.identity,
            )

    def _judge(self, one: Conditional, labels: list[ConditionedGenerator]) -> list[np.ndarray]:
        """Return the judged values of every class's images on the selection set."""
        num = self.run.config["compare"]["selection"]
        found = []
        for label, generator in enumerate(labels):
            self.check("the lines that are measured are kept")
            key = named_key(self.key, "conditional", one.name, label)
            images = generator.images(np.asarray(generator.sample_latents(key, num)))
            found.append(self.sides[0].attribute.values(images))
        return found

    def table(self) -> list[dict[str, Any]]:
        """Return what every class shows, a line each, for `LABEL_COLUMNS`; and the clusters'."""
        attribute = self.sides[0].attribute
        known = {**self._values, self.run.own_id: [side.members for side in self.sides]}
        rows = []
        for name, all_values in known.items():
            for label, values in enumerate(all_values):
                seen = values[~np.isnan(values)]
                above = int((seen > attribute.centre).sum())
                low, high = wilson_interval(above, len(seen)) if len(seen) else (0.0, 1.0)
                rows.append(
                    {
                        "generator": name,
                        "label": label,
                        "judge": attribute.judge.name,
                        "attribute": attribute.name,
                        "num": len(values),
                        "found": len(seen) / len(values) if len(values) else 0.0,
                        "mean": float(seen.mean()) if len(seen) else None,
                        "sd": float(seen.std()) if len(seen) else None,
                        "above": above / len(seen) if len(seen) else None,
                        "above_low": low,
                        "above_high": high,
                    }
                )
        return rows


def labels_as_text(rows: list[dict[str, Any]]) -> str:
    """Lay out what every class shows for a terminal."""
    if not rows:
        return ""
    asked = f"{rows[0]['attribute']} by {rows[0]['judge']}"
    lines = [f"what each class shows, {asked}:"]
    for row in rows:
        if row["mean"] is None:
            told = "none found"
        else:
            told = (
                f"{row['mean']:.2f} +- {row['sd']:.2f}, above the centre {row['above']:.3f} "
                f"({row['above_low']:.3f} to {row['above_high']:.3f}), found {row['found']:.3f}"
            )
        lines.append(f"  {row['generator']}, {row['label']}: {told}")
    return "\n".join(lines)


def _best(side: Side, values: list[np.ndarray]) -> int:
    right = [float(np.mean(side.attribute.is_right(found, side.sign))) for found in values]
    return int(np.argmax(right))


def _drawer(generators: list[ConditionedGenerator]) -> Drawer:
    def draw(key: PRNGKeyArray, c: int, num: int) -> tuple[np.ndarray, None]:
        return np.asarray(generators[c].sample_latents(key, num)), None

    return draw


def _imaginer(generators: list[ConditionedGenerator]) -> Imaginer:
    return lambda latents, c: generators[c].images(latents)
