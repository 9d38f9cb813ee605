"""A page stays while all that it shows is current, and a mode that finds a stale one renews it."""

import os
import shutil
from types import SimpleNamespace

import pytest

from cgjax.errors import Interrupted, UserError
from cgjax.run.opening import load_run
from cgjax.runtime.files import read_sealed, write_sealed
from cgjax.stages import evaluate
from cgjax.stages.assign import AssignStage
from cgjax.stages.evaluate import EvaluateStage
from cgjax.stages.pipeline import Pipeline
from tests.evaluation.test_fidelity import Itself
from tests.report.conftest import work
from tests.stages.tiny_runs import bytes_of

CLUSTERED = ("latents", "cluster")
KINDS = {
    "a finished run": ("",),
    "only a sweep": ("latents", "attributes", "sweep"),
    "a run interrupted after its clustering": CLUSTERED,
    "a run interrupted after its splits": (*CLUSTERED, "split"),
    "only a comparison": (*CLUSTERED, "fit", "compare"),
}
"""The beginnings of the names of what is there, beside the page and its images."""


def reduce_to(root, kept):
    """Remove everything else from a folder, and write its page."""

    def reduce(pipeline):
        manifests = pipeline.run.manifests
        for name in manifests.graph:
            if not name.startswith((*kept, "page", "report")):
                manifests.forget(name)
        manifests.forget_stale()
        (root / "summary.json").unlink()
        pipeline.report()

    work(root, reduce)


def content_of(root):
    places = ("report/index.html", "summary.json", "citations.bib", "stages/report.json")
    return {place: (root / place).read_bytes() for place in places if (root / place).is_file()}


def nothing(pipeline):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_of_any_kind_of_run_stays_and_shows_new_names(kind, copied):
    reduce_to(copied, KINDS[kind])
    before = content_of(copied)
    assert ("summary.json" in before) == (kind != "only a sweep")
    cluster = "layer2-k2=0" if kind == "only a sweep" else "0"
    modes = ("run", "sweep", "name") if kind == "only a sweep" else ("run", "compare", "assign")
    for mode in modes:
        work(copied, nothing, mode)
        assert content_of(copied) == before, mode
    work(copied, lambda pipeline: pipeline.name_cluster(cluster, "alpha"), "name")
    after = content_of(copied)
    assert after.keys() == before.keys()
    assert b'value="alpha"' in after["report/index.html"]


def assign(pipeline):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AssignStage, "run_all", lambda stage, images: "a table")
        pipeline.assign(pipeline.run.folder.root / "photos")


@pytest.mark.parametrize(
    "edited", ["sweep.csv", "compare.csv", "samples/flow/0/00000.png", "report/index.html"]
)
@pytest.mark.parametrize(
    ("mode", "work_on"),
    [("name", lambda pipeline: pipeline.name_cluster("0", "alpha")), ("assign", assign)],
)
def test_a_stale_page_is_removed_and_written_again_by_modes_that_do_not_make_it(
    mode, work_on, edited, copied
):
    (copied / edited).write_text("edited")
    left = []
    work(copied, lambda p: (left.append(content_of(copied)), work_on(p)), mode)
    assert left == [{}]
    assert content_of(copied).keys() >= {"report/index.html", "summary.json", "citations.bib"}
    shown = (copied / "report" / "index.html").read_text()
    assert ("What the layers hold" in shown) == (edited != "sweep.csv")


def test_a_page_does_not_show_the_assigned_images_and_stays_when_those_are_stale(copied):
    manifests = load_run(copied).manifests
    manifests.graph["assign photos"] = manifests.graph["encoder"]._replace(key="of other settings")
    manifests.record("assign photos", {}, {})
    before = content_of(copied)
    work(copied, nothing, "assign")  # and interrupted then
    assert content_of(copied) == before
    assert manifests.last_result("assign photos") is None


def as_earlier(root, has_inputs):
    """Record the page as an earlier version did: made from a finished run, a comparison apart."""
    manifests = load_run(root).manifests
    beside = ("compare", "sweep", "sweep layer2")
    keys = {name: manifests.graph[name].key for name in beside}
    manifests.record("report", {"shown": keys}, {})
    path = root / "stages" / "report.json"
    manifest = read_sealed(path)
    write_sealed(path, {k: v for k, v in manifest.items() if has_inputs or k != "made_from"})


@pytest.mark.parametrize("has_inputs", [True, False])
def test_a_page_of_an_earlier_version_stays_until_what_it_shows_is_stale(has_inputs, copied):
    as_earlier(copied, has_inputs)
    before = content_of(copied)
    work(copied, nothing, "name")
    assert content_of(copied) == before
    (copied / "compare.csv").write_text("edited")
    work(copied, nothing, "name")
    assert content_of(copied) == {}


def test_a_page_is_not_written_for_a_name_in_a_folder_without_one(copied):
    shutil.rmtree(copied / "report")
    work(copied, lambda pipeline: pipeline.name_cluster("0", "alpha"), "name")
    assert not (copied / "report").exists()
    work(copied, Pipeline.report, "report")
    assert (copied / "report").exists()


DAMAGES = {
    "clusters cut short": lambda root: os.truncate(root / "clusters.npz", 100),
    "no clusters": lambda root: (root / "clusters.npz").unlink(),
    "no manifest of the clusters": lambda root: (root / "stages" / "cluster.json").unlink(),
    "no latents": lambda root: (root / "latents.npy").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("mode", ["report", "name", "serve"])
def test_a_mode_that_makes_no_clusters_removes_nothing_when_they_are_damaged(mode, damage, copied):
    """Even if there is a sweep, which these modes can show alone if there is nothing else."""
    DAMAGES[damage](copied)
    before = bytes_of(copied)
    with pytest.raises(UserError, match=r"'(latents|cluster)' is .* cgjax.main .* makes it"):
        work(copied, nothing, mode)
    assert bytes_of(copied) == before


def test_an_evaluation_that_was_interrupted_goes_on_and_a_finished_one_is_repeated(
    copied, monkeypatch
):
    names, measured = load_run(copied).sampler_names, []
    stops = [names[1]]

    def measure(stage, name, *rest):
        if name in stops:
            stops.clear()
            raise Interrupted
        measured.append(name)
        return {"membership": [1.0, 1.0]}

    reference = SimpleNamespace(extractor=Itself())
    monkeypatch.setattr(EvaluateStage, "_evaluate", measure)
    monkeypatch.setattr(evaluate, "reference_of", lambda *_: reference)
    with pytest.raises(Interrupted):
        work(copied, lambda pipeline: pipeline.evaluate(again=True), "evaluate")
    assert measured == names[:1]
    for expected in (names, names + names):
        work(copied, lambda pipeline: pipeline.evaluate(again=True), "evaluate")
        assert measured == expected


def test_an_evaluation_that_is_interrupted_leaves_no_page_of_the_one_before(copied):
    def interrupted(pipeline):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(EvaluateStage, "run_all", lambda stage: pipeline.interrupts.stop(""))
            pipeline.evaluate(again=True)

    with pytest.raises(Interrupted):
        work(copied, interrupted, "evaluate")
    assert not (copied / "report").exists()
    assert not (copied / "summary.json").exists()
