"""`--mode=choose`: how many clusters a layer of a generator has, and how certain that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from cgjax.clustering.selection import check_rows, choose_num_clusters, most_clusters
from cgjax.clustering.selection.results import Verdict
from cgjax.clustering.selection.words import table_text, tree_text
from cgjax.config.schema import complete, validate
from cgjax.features.in_memory import features_in, space_at
from cgjax.features.spaces import FIT_ROWS, RAW
from cgjax.generators.conditioned import load_conditioned, source_of
from cgjax.generators.contract import ensure_generator
from cgjax.runtime.keys import named_key
from cgjax.runtime.log import Progress


def describe_choice(config: Mapping[str, Any], max_clusters: int) -> str:
    """Choose the number of clusters of a config's layer from fresh draws; nothing is written.

    Args:
        config: nested plain dicts, as `cgjax.config.plain.to_plain` returns them; `latents.num`
            latents are drawn, for three independent sets.
        max_clusters: the largest number of clusters.

    Returns:
        The choice as text: the number and the reason, the measurements for every number, how
        clusters split from one number to the next, and what to type.

    Raises:
        UserError: a config with wrong values, too few latents, or an object that is not a
            generator.
        ForeignError: the generator's own code raised an exception.
    """
    config = complete(config)
    validate(config)
    settings, num = config["generator"], config["latents"]["num"]
    fewer = most_clusters(num)
    check_rows(num, max_clusters, f", or choose among fewer, --max_clusters={fewer}" * bool(fewer))
    generator = load_conditioned(settings, config["layer"])
    ensure_generator(generator, source_of(settings))
    key = named_key(jax.random.key(config["seed"]), "choose")
    name = config["cluster"]["space"]
    space = RAW
    if name != "raw":  # fitted to separate draws
        own = generator.sample_latents(named_key(key, "space"), min(num, FIT_ROWS))
        space = space_at(generator, np.asarray(own), name)
    progress, done = Progress("draw", num), 0

    def draw(key: PRNGKeyArray, count: int) -> Float[np.ndarray, "n f"]:
        nonlocal done
        latents = np.asarray(generator.sample_latents(key, count))
        rows = features_in(generator, latents, space)
        done += count
        progress.update(done)
        return rows

    choice = choose_num_clusters(draw, max_clusters, key=key, num_rows=num)
    return "\n".join(
        (
            f"{generator.layer}: {choice.reason}",
            f"({choice.basis})",
            "",
            table_text(choice),
            "",
            tree_text(choice),
            "",
            what_to_type(choice.verdict, choice.num_clusters),
        )
    )


def what_to_type(verdict: Verdict, num_clusters: int) -> str:
    """Return the flag to type after a verdict.

    >>> what_to_type("several clusters", 5)
    'to use it: --config.cluster.num_clusters=5'
    """
    if verdict == "more clusters than asked for":
        return f"to choose among more: --max_clusters={2 * num_clusters}"
    if verdict == "one cluster":
        return "to cut it in two anyway: --config.cluster.num_clusters=2"
    return f"to use it: --config.cluster.num_clusters={num_clusters}"
