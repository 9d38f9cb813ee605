"""All mistakes in a config are reported together, before any work."""

import ast
import dataclasses
import importlib
import inspect
import itertools
import json
import re
import types
import typing
from pathlib import Path

import pytest

from cgjax.clustering.kmeans.checks import BACKENDS
from cgjax.clustering.kmeans.options import INITS
from cgjax.config import leaves as table
from cgjax.config import plain as configuration
from cgjax.config import rules, schema, training
from cgjax.errors import UserError
from cgjax.evaluation import judges
from cgjax.regions.region import MarginRange
from cgjax.samplers import registry
from cgjax.samplers.imle_modern import MATCHINGS
from cgjax.samplers.matching import MATCHERS
from configs import common

CONFIGS = sorted(p.stem for p in Path(common.__file__).parent.glob("*.py"))
CONFIGS = [name for name in CONFIGS if name not in ("__init__", "common", "scgan_common")]
# What a sampler is given by the run, and what only the published IMLE lets one set.
CONTEXT = {"latent_dim", "prior"}
IMLE_ONLY = {"beta1", "beta2", "weight_decay", "decay_epochs", "reset_optimizer", "matcher"}


def plain(name="dcgan_pose", arg=""):
    return configuration.to_plain(importlib.import_module(f"configs.{name}").get_config(arg))


def put(config, path, value):
    """Set a leaf; return the config."""
    *sections, name = path.split(".")
    for section in sections:
        config = config[section]
    config[name] = value


def message(config):
    """Return the one-line message with which a config is refused."""
    with pytest.raises(UserError) as error:
        schema.validate(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def refusal(path, value):
    """Return the message with which the defaults with one changed leaf are refused."""
    config = plain()
    put(config, path, value)
    return message(config)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("arg", ["", "quick"])
def test_shipped_configs_are_valid_and_complete(name, arg):
    config = plain(name, arg)
    schema.validate(config)
    assert schema.complete(config) == config
    schema.validate(json.loads(json.dumps(config)))


def test_every_problem_is_named_with_the_flag_to_type():
    config = plain()
    config["cluster"]["num_clusters"] = 0
    config["samplers"]["imle"]["batch"] = 1
    config["cluster"]["backend"] = "gpu"
    config["sample"]["sampler"] = "magic"
    config["compare"]["margins"] = [0.0, [0.8, 0.6]]
    line = message(config)
    for part in (
        "--config.cluster.num_clusters=0: expected at least 1",
        "--config.samplers.imle.batch=1: expected at least 2",
        "--config.cluster.backend=gpu: expected jax or faiss",
        "--config.sample.sampler=magic",
        "--config.compare.margins=0.8:0.6: expected a quantile",
    ):
        assert part in line


# The table and the rest of the code


def test_the_table_has_exactly_the_leaves_of_the_defaults_and_their_types():
    config = common.get_config()
    flat = configuration.flatten(configuration.to_plain(config))
    assert set(schema.LEAVES) == set(flat)
    for path, leaf in schema.LEAVES.items():
        holder, (*sections, name) = config, path.split(".")
        for section in sections:
            holder = holder[section]
        assert holder.get_type(name) is (object if leaf.words else leaf.kind), path
        assert flat[path] is not None or leaf.optional, path


def test_every_leaf_of_the_defaults_has_a_comment_at_its_first_use():
    lines = inspect.getsource(common.get_config).splitlines()
    explained, bare = set(), []
    for before, line in itertools.pairwise(lines):
        leaf = re.match(r"\s+([\w.]+)\.(\w+) = ", line)
        if leaf is None or "ConfigDict(" in line:
            continue
        if before.lstrip().startswith("#"):
            explained.add(leaf[2])
        elif leaf[1].startswith("config") or leaf[2] not in explained:
            bare.append(line)
    assert bare == []


@pytest.mark.parametrize("name", registry.SAMPLERS)
def test_a_sampler_has_the_leaves_of_its_class_and_of_the_run_and_their_types(name):
    cls = registry.SAMPLERS[name]
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)} - CONTEXT
    if name.startswith("imle_"):
        fields -= IMLE_ONLY
    known = table.SAMPLERS[name]
    assert set(known) - set(registry.RUN_LEAVES) == fields
    for field in fields:
        is_union = isinstance(hints[field], types.UnionType)
        kinds = set(typing.get_args(hints[field]) if is_union else (hints[field],))
        assert kinds - {type(None)} == {known[field].kind}, field
        assert (type(None) in kinds) == known[field].optional, field


def test_names_and_choices_match_the_code():
    assert tuple(table.SAMPLERS) == tuple(registry.SAMPLERS)
    assert (table.INITS, table.BACKENDS) == (INITS, BACKENDS)
    assert (table.MATCHERS, table.MATCHINGS) == (MATCHERS, MATCHINGS)
    built_in = {name: judge.attributes for name, judge in judges.JUDGES.items()}
    assert built_in == table.JUDGES
    assert list(table.JUDGES) == list(judges.JUDGES)


def test_only_the_four_settings_that_change_no_result_are_resources():
    assert {path for path in schema.LEAVES if schema.is_resource(path)} == {
        "generator.batch",
        "cluster.memory_mb",
        "sample.max_draws",
        "checkpoint_epochs",
    }
    assert not schema.is_resource("no.such.leaf")
    assert schema.leaf_of("no.such.leaf") is None


def test_the_schema_imports_nothing_heavy():
    for module in (table, rules, schema, training):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else names
            for name in names:
                ours = name.startswith(("cgjax.config.", "cgjax.errors"))
                assert ours or name in {
                    "__future__",
                    "collections.abc",
                    "difflib",
                    "math",
                    "typing",
                }


# Each leaf alone

WRONG_TYPES = {
    int: ["x", 1.5, 2.0, True, [1], {"a": 1}],
    float: ["x", True, [1.0], 10**400, {"a": 1}],
    str: [3, True, ["x"], {"a": 1}],
    bool: [1, 0.0, "true", [True]],
    tuple: [1.0, "x", True, {"a": 1}],
}


@pytest.mark.parametrize("path", schema.LEAVES)
def test_a_value_of_the_wrong_type_is_refused_with_its_flag(path):
    leaf = schema.LEAVES[path]
    wrong = WRONG_TYPES[leaf.kind] + ([] if leaf.optional else [None])
    for value in wrong:
        assert refusal(path, value).startswith(f"--config.{path}="), value


@pytest.mark.parametrize("path", [p for p, leaf in schema.LEAVES.items() if leaf.optional])
def test_an_optional_leaf_may_be_unset(path):
    config = plain()
    put(config, path, None)
    schema.validate(config)


@pytest.mark.parametrize("path", [p for p, leaf in schema.LEAVES.items() if leaf.low is not None])
def test_a_number_below_its_range_is_refused_with_the_range(path):
    low = schema.LEAVES[path].low
    assert re.search(
        rf"--config\.{path}={low - 1:g}(\.0)?: expected (at least|from) {low:g}",
        refusal(path, int(low - 1)),
    )


@pytest.mark.parametrize("path", [p for p, leaf in schema.LEAVES.items() if leaf.kind is int])
def test_an_integer_that_jax_cannot_hold_is_refused(path):
    for value in (2**32, 2**70, 10**400):
        assert refusal(path, value).startswith(f"--config.{path}=")


@pytest.mark.parametrize("path", [p for p, leaf in schema.LEAVES.items() if leaf.kind is float])
def test_a_number_that_is_not_finite_or_above_its_range_is_refused(path):
    high = schema.LEAVES[path].high
    for value in (float("nan"), float("inf"), -float("inf")):
        assert refusal(path, value) == f"--config.{path}={value}: expected a finite number"
    if high is not None:
        assert f"--config.{path}={high + 0.5}: expected from 0 to {high:g}" in refusal(
            path, high + 0.5
        )


@pytest.mark.parametrize("path", [p for p, leaf in schema.LEAVES.items() if leaf.choices])
def test_an_unknown_word_is_refused_with_the_choices(path):
    choices = " or ".join(schema.LEAVES[path].choices)
    assert f"--config.{path}=gpu: expected {choices}" in refusal(path, "gpu")


def test_an_integer_is_accepted_for_a_float_leaf():
    config = plain()
    config["samplers"]["flow"]["guidance"] = 2
    schema.validate(config)


def test_a_long_or_broken_value_is_shown_short_and_on_one_line():
    line = refusal("cluster.init", "a\nb" * 1000)
    assert len(line) < 200


# Lists


@pytest.mark.parametrize("value", [0, 0.6, "0.6", "0.55:0.8", (0.55, 0.8), [0.5, 1], 0.999])
def test_a_margin_range_is_accepted(value):
    MarginRange.parse(value)
    config = plain()
    config["compare"]["margins"] = [value]
    schema.validate(config)


@pytest.mark.parametrize(
    "value", [1, -0.1, "x", (0.8, 0.6), (0.1, 0.2, 0.3), [], "", True, float("nan"), "0.5:"]
)
def test_an_invalid_margin_gets_the_message_of_the_margin_range(value):
    with pytest.raises(UserError) as error:
        MarginRange.parse(value, "--config.compare.margins")
    assert refusal("compare.margins", [0.5, value]) == str(error.value)


@pytest.mark.parametrize(
    ("path", "element"),
    [
        ("compare.margins", {}),
        ("compare.margins", None),
        ("compare.alphas", "x"),
        ("compare.alphas", True),
        ("compare.alphas", float("nan")),
        ("compare.alphas", [1.0]),
        ("compare.dialled", "flows"),
        ("compare.dialled", "flow,flows"),
        ("compare.dialled", 3),
        ("transfer.conditions", 1.5),
        ("transfer.conditions", -1),
        ("transfer.conditions", ""),
        ("transfer.conditions", True),
        ("transfer.conditions", ["beagle"]),
        ("hierarchy.splits", "9" * 5000 + "/layer1-k2"),
    ],
)
def test_a_wrong_element_of_a_list_is_refused_with_its_flag(path, element):
    assert refusal(path, [element]).startswith(f"--config.{path}=")


def test_classes_are_names_ids_or_several_names_in_one_text_and_so_are_samplers():
    config = plain()
    config["compare"]["dialled"] = ["flow,imle", "rejection"]
    config["transfer"]["conditions"] = ["beagle,207", 331, "sea lion"]
    schema.validate(config)


# Missing and unknown


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("cluster.numclusters", "did you mean --config.cluster.num_clusters?"),
        ("generator.depth", "--config.generator.depth: no such setting; name, weights"),
        ("clusters", "--config.clusters: no such setting; did you mean --config.cluster?"),
        ("samplers.flow.num_epoch", "did you mean --config.samplers.flow.num_epochs?"),
        ("samplers.magic", "config.samplers.magic: no such sampler (rejection, flow"),
    ],
)
def test_an_unknown_leaf_is_refused_with_the_nearest_name(path, line):
    assert line in refusal(path, 3)


@pytest.mark.parametrize("path", [p for p in schema.LEAVES if not p.startswith("samplers.")])
def test_a_missing_leaf_is_refused_with_its_flag(path):
    config = plain()
    section, _, name = path.rpartition(".")
    del (config[section] if section else config)[name]
    assert f"--config.{path} is missing" in message(config)


@pytest.mark.parametrize("section", [*table.SECTIONS, "samplers"])
def test_a_missing_section_is_refused(section):
    config = plain()
    del config[section]
    assert f"--config.{section} is missing" in message(config)
    config[section] = 5
    assert f"config.{section}=5: expected a section of settings" in message(config)


def test_a_sampler_needs_only_the_leaf_fit():
    config = plain()
    config["samplers"] = {"flow": {"fit": True}, "rejection": {"fit": False}}
    schema.validate(config)
    config["samplers"]["gan"] = {"num_epochs": 3}
    assert message(config) == "--config.samplers.gan.fit is missing"
    config["samplers"]["gan"] = True
    assert message(config) == "config.samplers.gan=True: expected a section of settings"


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("config", [None, [], "x", 3, {}, {"generator": None}, {"samplers": []}])
def test_something_that_is_not_a_config_is_refused_in_one_line(config):
    message(config)


# Between leaves


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"latents.num": 3, "cluster.num_clusters": 4}, "latents.num=3 is less than num_clusters"),
        (
            {"cluster.max_samples": 3, "cluster.num_clusters": 4},
            "--config.cluster.max_samples=3 is less than num_clusters=4",
        ),
        (
            {"cluster.trimmed": 0.1, "cluster.backend": "faiss"},
            "--config.cluster.trimmed=0.1: expected 0 with cluster.backend=faiss",
        ),
        (
            {"samplers.flow.num_latents": 3, "cluster.num_clusters": 4},
            "--config.samplers.flow.num_latents=3 is less than num_clusters=4",
        ),
        (
            {"evaluate.components": 2000},
            "--config.evaluate.prior_images=2000: expected more than components=2000",
        ),
        ({"sample.sampler": "gan"}, "(rejection, flow, imle)"),
        (
            {"evaluate.features": "layer:"},
            "--config.evaluate.features=layer:: expected pca_pixels, random_cnn, layer:NAME, "
            "inception:FILE or package.module:function",
        ),
        (
            {"compare.judge": "face"},
            "--config.compare.judge=face: expected face_mesh, age_gender",
        ),
        (
            {"compare.judge": "face_mesh", "compare.attribute": "roll"},
            "--config.compare.attribute=roll: the judge face_mesh knows yaw, pitch, face",
        ),
        ({"compare.alphas": []}, "--config.compare.alphas: expected at least one number"),
    ],
)
def test_conflicting_values_are_refused(changes, line):
    config = plain()
    for path, value in changes.items():
        put(config, path, value)
    assert line in message(config)


def test_the_latents_of_a_sampler_that_is_not_fitted_are_not_counted():
    config = plain()
    config["cluster"]["num_clusters"] = 3000
    config["samplers"]["gan"]["num_latents"] = 2
    schema.validate(config)


@pytest.mark.parametrize(
    "path",
    [
        "samplers.imle.code_dim",
        "samplers.imle.hidden_dim",
        "samplers.imle.pool_factor",
        "samplers.gan.critic_dim",
        "samplers.vae.encoder_dim",
        "samplers.mixture.num_components",
    ],
)
def test_an_array_too_large_for_memory_is_refused_with_its_size(path):
    config = plain()
    for settings in config["samplers"].values():
        settings["fit"] = True
    put(config, path, 100_000_000)
    line = message(config)
    assert re.search(rf"^--config\.{path}=100000000: needs more than [\d,]+ GB", line)
    assert line.count("--config") == 1
    put(config, path, 1000)
    schema.validate(config)


# Resources


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("resources", "line"),
    [
        ({"sample": {"max_draw": 10}}, "did you mean --config.sample.max_draws?"),
        ({"sample": 3}, "--config.sample: no such setting; "),
        ({"samples": {"max_draws": 10}}, "did you mean --config.sample.max_draws?"),
        ({"sample": {"max_draws": {"flow": 10}}}, "--config.sample.max_draws.flow: no such"),
        ({"train": {"iterations": 3}}, "--config.train.iterations: no such setting; "),
        ([1], "resources=1: expected sections of settings"),
    ],
)
def test_resources_that_no_config_has_are_refused(resources, line):
    with pytest.raises(UserError) as error:
        schema.with_resources(plain(), resources)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_the_resources_of_a_whole_config_of_another_generator_are_taken():
    other = schema.complete(plain("tiny", "quick"))
    other["sample"]["max_draws"] = 5
    changed = schema.with_resources(plain(), other)
    assert changed["sample"]["max_draws"] == 5
    assert changed["generator"]["name"] == plain()["generator"]["name"]


# Configs of older versions


def test_an_old_config_is_completed_with_the_values_of_its_time():
    config = plain()
    old = json.loads(json.dumps(config))
    del old["transfer"], old["compare"], old["evaluate"]["features"]
    del old["cluster"]["memory_mb"], old["cluster"]["max_samples"]
    del old["cluster"]["space"], old["cluster"]["trimmed"]
    del old["samplers"]["imle"]["matcher"]
    whole = schema.complete(old)
    schema.validate(whole)
    assert whole == config
    assert "transfer" not in old


def test_added_leaves_have_the_value_of_the_defaults():
    flat = configuration.flatten(configuration.to_plain(common.get_config()))
    assert {path: flat[path] for path in table.ADDED} == table.ADDED


def test_completing_fills_only_what_newer_versions_added():
    config = plain()
    del config["layer"], config["cluster"], config["samplers"]["imle"]
    whole = schema.complete(config)
    assert "layer" not in whole
    assert "cluster" not in whole
    assert "imle" not in whole["samplers"]
    assert schema.complete({"cluster": 5})["cluster"] == 5


def test_equal_settings_have_equal_digests_however_they_are_written():
    config = plain()
    config["samplers"]["flow"]["guidance"] = 1
    config["compare"]["margins"] = (0, 0.3, 0.6)
    config["compare"]["judge"] = None
    assert configuration.digest(schema.complete(config)) == configuration.digest(plain())
