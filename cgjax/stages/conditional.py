"""The rows of a comparison for generators with classes, where a class stands for a cluster.

The judge chooses the class on a selection set, as it chooses directions; the table is made on other
latents. What every class shows is a separate table, the paper's Table 1.
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
from cgjax.stages.measuring import judge
from cgjax.stages.methods import ComparedMethod, Drawer, Imaginer

LABEL_COLUMNS = (
    *("generator", "label", "judge", "attribute", "num", "found"),
    *("mean", "sd", "above", "above_low", "above_high"),
)
"""The columns of `compare_labels.csv`; `above` is the share of found values above the centre."""


class ConditionalBaselines:
    """The generators with classes in one run's comparison."""

    def __init__(self, run: Run, sides: list[Side], key: PRNGKeyArray, check: Callable[..., None]):
        """Prepare.

        Args:
            run: with its clusters.
            sides: for each cluster, the side of the judged attribute that its members are on.
            key: of the selection set.
            check: called between classes, with what is kept if it raises to stop.
        """
        self.run, self.sides, self.key, self.check = run, sides, key, check
        self._values: dict[str, list[np.ndarray]] = {}

    def methods(self) -> Iterator[ComparedMethod]:
        """Yield one method per generator, with the class that the judge chose for each cluster."""
        for one in self.run.conditional:
            labels = load_labels(one, self.run.generator)
            values = self._values[one.name] = self._judge(one, labels)
            chosen = [_best(side, values) for side in self.sides]
            for c, label in enumerate(chosen):
                logging.info("%s, cluster %d: class %d", one.name, c, label)
            by_cluster = [labels[label] for label in chosen]
            yield ComparedMethod(
                one.name,
                f"of {len(labels)} classes {chosen}",
                _drawer(by_cluster),
                imagine=_imaginer(by_cluster),
                identity=one.identity,
            )

    def _judge(self, one: Conditional, labels: list[ConditionedGenerator]) -> list[np.ndarray]:
        """Return the judged values of every class's images on the selection set."""
        num = self.run.config["compare"]["selection"]
        judged = []
        for label, generator in enumerate(labels):
            self.check("the measured lines are kept")
            key = named_key(self.key, "conditional", one.name, label)
            latents = np.asarray(generator.sample_latents(key, num))
            judged.append(judge(self.sides[0].attribute, generator.image_blocks(latents)))
        return judged

    def table(self) -> list[dict[str, Any]]:
        """Return what every class and every cluster shows, a row of `LABEL_COLUMNS` each."""
        attribute = self.sides[0].attribute
        own = {self.run.clustering.id: [side.judged for side in self.sides]}
        rows = []
        for name, all_values in (self._values | own).items():
            for label, values in enumerate(all_values):
                found = values[~np.isnan(values)]
                above = int((found > attribute.centre).sum())
                low, high = wilson_interval(above, len(found)) if len(found) else (0.0, 1.0)
                rows.append(
                    {
                        "generator": name,
                        "label": label,
                        "judge": attribute.judge.name,
                        "attribute": attribute.name,
                        "num": len(values),
                        "found": len(found) / len(values) if len(values) else 0.0,
                        "mean": float(found.mean()) if len(found) else None,
                        "sd": float(found.std()) if len(found) else None,
                        "above": above / len(found) if len(found) else None,
                        "above_low": low,
                        "above_high": high,
                    }
                )
        return rows


def labels_as_text(rows: list[dict[str, Any]]) -> str:
    """Lay out what every class shows for a terminal."""
    asked = f"{rows[0]['attribute']} by {rows[0]['judge']}"
    lines = [f"what each class shows, {asked}:"]
    for row in rows:
        if row["mean"] is None:
            text = "none found"
        else:
            text = (
                f"{row['mean']:.2f} +- {row['sd']:.2f}, above the centre {row['above']:.3f} "
                f"({row['above_low']:.3f} to {row['above_high']:.3f}), found {row['found']:.3f}"
            )
        lines.append(f"  {row['generator']}, {row['label']}: {text}")
    return "\n".join(lines)


def _best(side: Side, values: list[np.ndarray]) -> int:
    accuracies = [float(np.mean(side.attribute.is_right(v, side.sign))) for v in values]
    return int(np.argmax(accuracies))


def _drawer(generators: list[ConditionedGenerator]) -> Drawer:
    def draw(key: PRNGKeyArray, c: int, num: int) -> tuple[np.ndarray, None]:
        return np.asarray(generators[c].sample_latents(key, num)), None

    return draw


def _imaginer(generators: list[ConditionedGenerator]) -> Imaginer:
    return lambda latents, c: generators[c].image_blocks(latents)
