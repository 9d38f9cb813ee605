"""A sampler trained on a query: kept in the run's folder, and used by later draws of the query."""

import json
import shutil

import jax
import numpy as np
import pytest

from cgjax.config.schema import CLUSTERS
from cgjax.errors import Interrupted, UserError
from cgjax.generators.batching import in_batches
from cgjax.modes import Command, action_for
from cgjax.run.members import LEAST
from cgjax.run.opening import load_run
from cgjax.run.run import Run
from cgjax.runtime.lock import FolderLock
from cgjax.runtime.processes import Processes
from cgjax.runtime.signals import Interrupts
from cgjax.stages.draw import draw_region, query_to_fit
from cgjax.stages.pipeline import Pipeline
from cgjax.stages.trainer import SamplerTrainer
from tests.stages.test_draw import asked
from tests.stages.tiny_runs import pipeline_of
from tests.test_modes import parsed

QUERY = "layer2=0 & 0"


def train(root, cluster, **options):
    with pipeline_of(load_run(root)) as pipeline:
        pipeline.fit_in(*query_to_fit(pipeline.run, asked(root, cluster, **options)))
    return load_run(root)


def test_a_sampler_of_a_query_is_trained_with_the_resources_of_the_given_config(layered, tmp_path):
    config = load_run(layered).config
    config["sample"]["max_draws"] = 7
    options = parsed("--fit_query", "--cluster=0 & layer2=0", f"--out={tmp_path}")
    state = (Processes(), FolderLock(layered), Interrupts())
    command = Command("sample", options, layered, config, [], *state)
    with pytest.raises(UserError, match=r"the budget is --config.sample.max_draws=7: type"):
        action_for("sample", CLUSTERS)(command)


def test_a_sampler_of_a_query_proposes_it_and_is_kept(layered, tmp_path, capsys):
    region = load_run(layered).region(QUERY)
    run = train(layered, QUERY)
    assert run.samplers.name_for(region) == "flow"
    assert run.samplers.source(region, "flow").among.fingerprint == region.fingerprint
    # Another order is the same query; another query is not.
    assert run.samplers.fit_of("flow", run.region("0 & layer2=0")).last_step is not None
    assert run.samplers.fit_of("flow", run.region("layer2=0 | 0")).last_step is None
    draw_region(run, asked(tmp_path, QUERY, margin="0.5"))
    assert run.are_inside(np.load(tmp_path / "latents.npy"), run.region(QUERY, 0.5)).all()
    assert "flow: expected acceptance 100%" in capsys.readouterr().out


def test_a_sampler_of_a_query_learns_members_of_it_sorted_by_depth(layered, monkeypatch):
    query = "layer2=1 | 0"
    seen = []
    run = load_run(layered)
    kind = type(run.samplers.make("flow"))
    epoch = kind.epoch
    monkeypatch.setattr(kind, "epoch", lambda *args: seen.append(args[2]) or epoch(*args))
    train(layered, query)
    members = seen[0]
    region = run.region(query)
    assert members.is_ordered
    assert members.latents.shape[:2] == (1, 2000)
    z = np.asarray(members.latents[0])
    assert run.are_inside(z, region).all()
    assert len(np.unique(z, axis=0)) == len(z)

    def depth(rows):
        return region.depth(lambda layer: run.generator.at_layer(layer).features(rows))

    # The program that the depths were saved by: another one rounds otherwise.
    depths = in_batches(depth, z, run.generator.batch)
    assert (np.diff(depths) >= -1e-6).all()
    saved = run.samplers.fit_of("flow", region).last_step.metadata["depths"]
    np.testing.assert_allclose(saved, np.quantile(depths, np.linspace(0, 1, 101)), atol=1e-6)


def test_a_stopped_training_resumes_to_the_same_sampler(layered, tmp_path, monkeypatch):
    query, copy = "layer2=1 | 1", tmp_path / "run"
    shutil.copytree(layered, copy)
    region = load_run(layered).region(query)
    assert load_run(layered).samplers.fit_of("flow", region).sampler.num_epochs == 3
    with pipeline_of(load_run(copy)) as pipeline:
        kind = type(pipeline.run.samplers.make("flow"))
        epoch = kind.epoch

        def stopping(*args):
            pipeline.interrupts.requested = True
            return epoch(*args)

        monkeypatch.setattr(kind, "epoch", stopping)
        with pytest.raises(Interrupted):
            pipeline.fit_in(*query_to_fit(pipeline.run, asked(copy, query)))
        monkeypatch.undo()
    stopped = load_run(copy).samplers.fit_of("flow", region)
    assert stopped.last_step is None
    assert [step.number for step in stopped.saved.steps()] == [1]
    states = [
        train(folder, query).samplers.fitted("flow", region).state for folder in (layered, copy)
    ]
    for whole, resumed in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(np.asarray(whole), np.asarray(resumed))


@pytest.fixture
def untrained(layered, tmp_path, monkeypatch):
    """A copy of the run whose samplers of a query are saved as they are before training."""

    def save(self, fit, members, key, extra):
        state, metadata = fit.sampler.init(key, members), {"key": fit.key, **extra}
        fit.saved.save(fit.sampler.num_epochs, {"state": state}, metadata)
        return 0.0

    monkeypatch.setattr(SamplerTrainer, "train", save)
    copy, config = tmp_path / "run", load_run(layered).config
    shutil.copytree(layered, copy)
    config["samplers"]["imle_adaptive"]["fit"] = True
    with pipeline_of(Run(copy, config)) as pipeline:
        yield pipeline


def test_a_sampler_with_a_state_for_every_member_is_restored(untrained):
    run = untrained.run
    untrained.fit_in("imle_adaptive", run.region(QUERY))
    codes = run.samplers.fitted("imle_adaptive", run.region(QUERY)).state.codes
    assert codes.shape[:2] == (1, LEAST)


def test_a_sampler_of_one_cluster_of_a_sweep_draws_it_whatever_its_number(untrained):
    run, region = untrained.run, untrained.run.region("layer2=1")
    untrained.fit_in("flow", region)
    source = run.samplers.source(region, "flow")
    assert source.among.fingerprint == region.fingerprint
    assert len(source.propose(jax.random.key(0), 2)) == 2


def test_samplers_of_two_clusterings_have_different_labels(layered):
    run = load_run(layered)
    labels = [run.samplers.fit_of("flow", run.region(c)).label for c in ("layer2=0", "1/0", "0")]
    assert labels == ["flow in layer2-k2=0", "flow in 1/0", "flow in 0"]


def test_a_trained_sampler_is_not_retrained(layered, monkeypatch):
    train(layered, QUERY)
    monkeypatch.setattr(Pipeline, "fit_in", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(layered, QUERY)
    monkeypatch.undo()
    sampler = type(load_run(layered).samplers.make("flow"))
    monkeypatch.setattr(sampler, "epoch", lambda *args: 1 / 0)
    train(layered, QUERY)


def test_a_sampler_of_a_query_is_stale_with_other_settings(layered, tmp_path):
    run = train(layered, QUERY)
    region = run.region(QUERY)
    text = (layered / "config.json").read_text()
    saved = json.loads(text)
    saved["config"]["samplers"]["flow"]["learning_rate"] = 0.001
    (layered / "config.json").write_text(json.dumps(saved))
    try:
        assert load_run(layered).samplers.fit_of("flow", region).last_step is None
    finally:
        (layered / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("cluster", "sampler", "message"),
    [
        ("0", None, "--cluster=0: the run's samplers are trained on this cluster already"),
        (None, None, "--cluster=0: the run's samplers are trained on this cluster already"),
        (QUERY, "rejection", "--sampler=rejection: it is not trained; expected one of flow"),
        (
            QUERY,
            "imle",
            "--sampler=imle was not fitted in .*; to fit it too, add "
            "--config.samplers.imle.fit=true --allow_config_change to the command that made",
        ),
        (QUERY, "magic", "--sampler=magic was not fitted in .*; expected one of [a-z, ]+$"),
        ("0 & 1", None, "--cluster=0 & 1 matches nothing"),
    ],
)
def test_an_impossible_sampler_of_a_query_is_reported_in_one_line(
    cluster, sampler, message, layered
):
    with pytest.raises(UserError, match=message):
        train(layered, cluster, sampler=sampler)


def test_without_a_sampler_of_the_query_the_message_says_how_to_train_one(layered):
    run = load_run(layered)
    with pytest.raises(UserError, match="or train it on this query with --fit_query"):
        run.sample(jax.random.key(0), "layer2=0 | 0", 4, sampler="flow")
