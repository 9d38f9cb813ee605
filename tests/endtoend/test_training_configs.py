"""The configs that train a generator, their variants, and the tables behind them."""

import copy
import inspect
import re

import pytest

from cgjax.config import schema, training
from cgjax.config.plain import flatten, to_plain
from cgjax.endtoend import experiment as experiments
from cgjax.endtoend.data import DATA
from cgjax.endtoend.experiment import Experiment
from cgjax.endtoend.methods import METHODS, clustergan, labelled, selfcond
from cgjax.endtoend.networks import NETWORKS
from configs import (
    clustergan_digits,
    clustergan_faces,
    scgan_cifar10,
    scgan_common,
    scgan_faces,
    scgan_grid,
    scgan_imagenet,
    scgan_ring,
    scgan_stacked_digits,
)
from tests.endtoend.tiny_runs import settings

PLANE = ("code", "quick", "code-quick", "modulated")
VECTORS = {scgan_ring: PLANE, scgan_grid: PLANE, clustergan_digits: ("quick", "cpu")}


@pytest.mark.parametrize(
    ("module", "arg"), [(m, arg) for m, args in VECTORS.items() for arg in ("", *args)]
)
def test_every_variant_is_valid_and_complete(module, arg):
    config = to_plain(module.get_config(arg))
    schema.validate(config)
    assert schema.complete(config) == config
    assert set(flatten(config)) == set(training.LEAVES)


IMAGES = {
    scgan_faces: ("quick",),
    clustergan_faces: ("quick",),
    scgan_stacked_digits: ("quick", "cpu"),
    scgan_cifar10: ("quick",),
    scgan_imagenet: ("quick",),
}


@pytest.mark.parametrize(
    ("module", "arg"),
    [(module, arg) for module, args in IMAGES.items() for arg in ("", *args)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_variant_of_images_is_valid_and_complete(module, arg):
    config = to_plain(module.get_config(arg))
    schema.validate(config)
    assert schema.complete(config) == config
    assert set(flatten(config)) == set(training.LEAVES)
    with pytest.raises(ValueError, match="'fast' is not known"):
        module.get_config("fast")


@pytest.mark.parametrize(
    ("module", "known"),
    [
        (scgan_ring, "none or :code or :quick or :code-quick or :modulated"),
        (clustergan_digits, "none or :quick or :cpu"),
        (scgan_stacked_digits, "none or :quick or :cpu"),
        (scgan_faces, "none or :quick"),
    ],
)
def test_an_unknown_variant_is_refused_naming_the_known_ones(module, known):
    with pytest.raises(ValueError, match="config variant 'fast' is not known") as error:
        module.get_config("fast")
    assert str(error.value).endswith(f"; expected {known}")


def test_every_leaf_has_a_comment():
    lines = inspect.getsource(scgan_common.get_config).splitlines()
    leaves = [i for i, line in enumerate(lines) if re.search(r"\w+\.\w+ = (?!config_dict)", line)]
    bare = [lines[i] for i in leaves if not re.match(r"\s+#", lines[i - 1])]
    assert [line.strip() for line in bare] == ["labels.num_clusters = 50"]  # said above the section


def test_the_table_names_all_methods_data_sets_and_networks():
    assert set(training.METHODS) == set(METHODS)
    assert set(training.DATA_NAMES) == set(DATA)
    assert set(training.ARCHITECTURES) == set(NETWORKS)


EVERY = {"kind", "seed"}
EVERY |= {f"data.{name}" for name in ("name", "num")}
EVERY |= {f"network.{name}" for name in ("name", "latent_dim", "width")}
EVERY |= {f"train.{name}" for name in training.SECTIONS["train"]} - {
    *("train.penalty", "train.average")
}
EVERY |= {f"score.{name}" for name in ("num", "every", "repeats")}
EVERY |= {f"assign.{name}" for name in training.SECTIONS["assign"]}


def test_every_leaf_is_read_by_all_trainings_or_listed_with_its_readers():
    """A new leaf is in one of the two: read by every training, or by those that the table says."""
    assert set(training.READ_WHEN) | EVERY == set(training.LEAVES)
    assert not set(training.READ_WHEN) & EVERY
    defaults = flatten(to_plain(scgan_common.get_config()))
    for path, reader in training.READ_WHEN.items():
        assert defaults[path] == reader.default, path
        assert set(reader.values) <= set(training.LEAVES[reader.path].choices), path


def other_than(path):
    """Another legal value of a leaf."""
    leaf, plain = training.LEAVES[path], training.READ_WHEN[path].default
    if leaf.kind is bool:
        return not plain
    return {"data.path": "x", "score.features": "random_cnn", "labels.features": "autoencoder"}.get(
        path, plain + 1 if leaf.kind is int else 0.5
    )


@pytest.mark.parametrize("path", training.READ_WHEN)
def test_a_setting_that_nothing_reads_is_refused_or_logged(path):
    reader = training.READ_WHEN[path]
    leaves = {path: other_than(path)}
    for value in training.LEAVES[reader.path].choices:
        found = leaves | {reader.path: value}
        said = f"--config.{path}={found[path]}: expected {reader.default} with {reader.path}="
        is_refused = any(p.startswith(said) for p in training.problems_between(found))
        is_told = training.unread(found) == f"{path}={found[path]} ({reader.path}={value})"
        is_read = value in reader.values
        assert (is_refused, is_told) == (
            not is_read and not reader.is_shared,
            not is_read and reader.is_shared,
        )


def test_settings_that_nothing_reads_are_logged_when_the_data_are_checked(caplog):
    with caplog.at_level("INFO", logger="absl"):
        experiments.check_data(settings(train__method="gan", data__radius=2.0))
    (told,) = caplog.messages
    assert told.startswith(
        "not used by this training: labels.num_clusters=4 (train.method=gan), labels.every=6"
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_built_from_a_config(name):
    config = copy.deepcopy(settings(train__method=name))
    if name == "clustergan":
        config["network"]["name"], config["data"]["name"] = "encoding", "digits8"
    schema.validate(config)
    assert Experiment(config).trainer.method.num_labels >= 1


@pytest.mark.parametrize("name", ["scgan", "scgan_online", "fixed_clusters", "clustergan"])
def test_every_clustering_uses_the_configs_restarts_and_iterations(name, monkeypatch):
    asked = []
    for module in (clustergan, experiments, labelled, selfcond):

        def kmeans(*args, known=module.kmeans, **options):
            asked.append((options["num_init"], options["max_iter"]))
            return known(*args, **options)

        monkeypatch.setattr(module, "kmeans", kmeans)
    config = settings(train__method=name, labels__num_init=3, labels__max_iter=7)
    if name == "clustergan":
        config["network"]["name"], config["data"]["name"] = "encoding", "digits8"
    experiment = Experiment(config)
    (state,) = experiment.per_trial(experiment.init())
    experiment.agreement(state, 0)
    experiment.agreement_of_kmeans()
    assert len(asked) == 2
    assert set(asked) == {(3, 7)}
