"""What is checked of a run's config and generator when it is opened, before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cgjax.clustering.faiss_backend import load_faiss
from cgjax.clustering.selection import check_rows
from cgjax.config.distance_features import LAYER, kind_of_feature
from cgjax.config.leaves import AUTO
from cgjax.config.splits import settings_inside
from cgjax.errors import UserError
from cgjax.evaluation.attribute import attribute_of
from cgjax.evaluation.fidelity import check_components, check_features
from cgjax.evaluation.judges import JudgedValues
from cgjax.evaluation.lpips import check_file
from cgjax.features.in_memory import size_to_cluster
from cgjax.generators.conditioned import ConditionedGenerator, source_of
from cgjax.generators.contract import ensure_generator, is_builtin
from cgjax.run.artifacts import target_classes
from cgjax.run.conditional import FLAG, load_labels
from cgjax.run.places import fit_name, split_name, sweep_name
from cgjax.run.run import Run


def check_processes(config: Mapping[str, Any], mode: str) -> None:
    """Refuse what several processes cannot share.

    Raises:
        UserError: with what to type instead.
    """
    clustered = config["cluster"]
    for is_asked, what, instead in (
        (mode == "sweep", "--mode=sweep", ""),
        (mode in ("name", "serve", "assign"), f"--mode={mode}", ""),
        (clustered["backend"] == "faiss", "--config.cluster.backend=faiss", "use jax"),
        (clustered["num_clusters"] == AUTO, "--config.cluster.num_clusters=auto", "give a number"),
        (clustered["trimmed"] > 0, "--config.cluster.trimmed", "use 0"),
        (bool(config["hierarchy"]["splits"]), "--config.hierarchy.splits", "leave it out too"),
    ):
        if is_asked:
            hint = f", or {instead}" if instead else ""
            raise UserError(f"{what} is for one process; leave the launcher out{hint}")


def check_run(run: Run, mode: str) -> None:
    """Check everything that can be known before any work.

    Raises:
        UserError: a sampler, feature, judge or class that is not available; a generator that
            breaks its contract; a clustering of too few latents, of features too large for its
            method, or by FAISS where that is missing.
        ForeignError: the generator's own code raised an exception.
    """
    ensure_generator(run.generator, source_of(run.config["generator"]))
    _check_keywords(run.generator)
    for name in run.sampler_names:
        run.samplers.make(name)
    if run.config["cluster"]["num_clusters"] == AUTO:
        check_rows(_num_clustered(run), run.config["cluster"]["max_clusters"])
    measured = run.config["compare" if mode == "compare" else "evaluate"]
    check_features(run.config["evaluate"], measured["num"], run.generator)
    if weights := run.config["assign"]["lpips"]:
        check_file(weights, run.generator.image_shape[0])
    if mode == "compare":
        _check_comparison(run)
    if mode == "sweep":
        _check_sweep(run)
    check_targets(run)
    if mode in ("run", "evaluate", "compare"):
        check_components(run.config["evaluate"], run.generator)
    _check_clusterings(run, mode)
    if mode in ("run", "compare"):
        _check_matchers(run)


def _check_keywords(generator: ConditionedGenerator) -> None:
    """Trace a pass of one latent: a class or truncation that there is not is refused here."""
    if is_builtin(generator.gen):  # the user's own have made images by now
        _ = generator.feature_shape


def _check_clusterings(run: Run, mode: str) -> None:
    """Check every clustering that is to be made."""
    config, settings = run.config, run.config["cluster"]
    latents, num = config["latents"]["num"], _num_clustered(run)
    leaf = "latents.num" if num == latents else "cluster.max_samples"

    def is_missing(name: str) -> bool:
        return run.manifests.result(name) is None

    if mode in ("run", "compare") and is_missing("cluster"):
        is_chosen = settings["num_clusters"] == AUTO
        most = settings["max_clusters" if is_chosen else "num_clusters"]
        _check_clustering(run.generator, leaf, num, most, settings)
    for layer in run.held.sweep_layers if mode == "sweep" else ():
        if is_missing(sweep_name(layer)):
            generator, most = run.generator.at_layer(layer), run.held.sweep_numbers[-1]
            _check_clustering(generator, leaf, num, most, settings)
    for split in run.held.splits if mode == "run" else ():
        if is_missing(split_name(split.path)):
            generator, num = run.generator.at_layer(split.layer), config["hierarchy"]["num"]
            leaf = "hierarchy.num" if num else "latents.num"
            inside = settings_inside(config)
            _check_clustering(generator, leaf, num or latents, split.num_clusters, inside)


def _check_clustering(
    generator: ConditionedGenerator, leaf: str, num: int, most: int, settings: Mapping[str, Any]
) -> None:
    """Check that there are latents for all clusters, and what the method of clustering needs.

    Args:
        generator: with the layer.
        leaf: the leaf that limits the number of latents.
        num: of latents.
        most: the largest number of clusters.
        settings: the config's `cluster`, or what holds inside a cluster.
    """
    share = settings["trimmed"]
    num_kept = num - int(share * num)
    if num_kept < most:
        trimmed = f" with --config.cluster.trimmed={share:g}" if share else ""
        raise UserError(
            f"{most} clusters of {generator.layer} need at least {most} latents, and "
            f"--config.{leaf}={num}{trimmed} leaves {num_kept}; raise it"
        )
    if settings["backend"] == "faiss" or share:
        size_to_cluster(generator, num, settings)
    if settings["backend"] == "faiss":
        load_faiss()


def _check_matchers(run: Run) -> None:
    """Check that FAISS is there if a sampler is still to be trained with it."""
    for name in run.sampler_names:
        is_by_faiss = run.config["samplers"][name].get("matcher") == "faiss"
        if is_by_faiss and run.manifests.result(fit_name(name)) is None:
            load_faiss()


def _num_clustered(run: Run) -> int:
    num: int = run.config["latents"]["num"]
    return min(num, run.config["cluster"]["max_samples"] or num)


def _check_comparison(run: Run) -> None:
    """Check the judge of a comparison, and the generators with classes in it."""
    attribute = attribute_of(run.config["compare"])
    if run.conditional and attribute is None:
        raise UserError(
            f"{FLAG} needs a judge, which says which class stands for which cluster: give "
            "--config.compare.judge=face_mesh"
        )
    features = run.config["evaluate"]["features"]
    if run.conditional and kind_of_feature(features) == LAYER:
        raise UserError(
            f"--config.evaluate.features={features} belongs to the run's own generator, and {FLAG} "
            "has images of others; give --config.evaluate.features=pca_pixels"
        )
    for one in run.conditional:
        load_labels(one, run.generator)


def _check_sweep(run: Run) -> None:
    """Check that there are enough latents for a sweep, and its judges."""
    settings, num = run.config["sweep"], run.config["latents"]["num"]
    most = run.held.sweep_numbers[-1]
    try:
        check_rows(_num_clustered(run), most)
    except UserError as error:
        raise UserError(f"--config.sweep.numbers={most}: {error}") from error
    if num < settings["judged"]:
        raise UserError(
            f"--config.sweep.judged={settings['judged']} is more than latents.num={num}"
        )
    JudgedValues(run.judges)  # loads them


def check_targets(run: Run) -> None:
    """Check that the generator has the classes that the config transfers to."""
    for name in target_classes(run.config):
        try:
            _ = run.generator.with_condition(name).feature_shape
        except UserError as error:
            raise UserError(f"--config.transfer.conditions={name}: {error}") from error
