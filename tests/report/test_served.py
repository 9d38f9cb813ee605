"""A served run: its page, names, draws and downloads, and what is refused."""

import io
import json
import re
import zipfile
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from cgjax.run.opening import load_run, open_run
from cgjax.runtime.signals import Interrupts
from cgjax.serve.app import Served
from cgjax.serve.guard import MAX_BODY
from cgjax.stages.pipeline import Pipeline

HARMFUL = (
    "<script>alert(1)</script>",
    "x" * 10_000,
    "\u202e\u05e9\u05dc\u05d5\u05dd",
    "../../etc/passwd",
)


@pytest.fixture
def served(copied):
    pipeline = Pipeline(open_run(copied, None, mode="serve"), Interrupts())
    served = Served(pipeline)
    with TestClient(served.app, raise_server_exceptions=False) as client:
        yield SimpleNamespace(served=served, client=client, root=copied, run=pipeline.run)
    served.worker.close()
    pipeline.metrics.close()


def messages(served, **wanted):
    answer = served.client.post("/api/draw", json=wanted)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def save(served, *clusters):
    one = served.run.clustering
    content = {"id": one.id, "digest": one.digest, "clusters": list(clusters)}
    body = {"format": "cgjax names", "version": 1, "clusterings": [content]}
    return served.client.put("/api/names", json=body)


def test_a_draw_has_the_latents_of_the_command_and_downloads_hold_them(served):
    found = messages(served, cluster="0", num=20, seed=3)
    begun, *middle, last = found
    assert begun["num"] == 20
    assert "expected acceptance" in begun["begun"]
    assert sum(len(message["images"]) for message in middle) == middle[-1]["drawn"] == 20
    done = last["done"]
    same = load_run(served.root).sample(jax.random.key(3), 0, 20)
    assert done["acceptance"] == same.acceptance
    assert f"--num=20 --seed=3 --sampler={done['sampler']}" in done["command"]

    def download(kind):
        answer = served.client.get(f"/api/drawn/{done['id']}/{kind}")
        assert answer.status_code == 200
        return io.BytesIO(answer.content)

    np.testing.assert_array_equal(np.load(download("latents.npy")), same.latents)
    images = np.load(download("images.npy"))
    assert images.shape == (20, *same.images.shape[1:])
    shown = np.clip(np.rint((same.images + 1) * 127.5), 0, 255)
    assert np.abs(images - shown).max() <= 1  # rounding: passes of another size
    with zipfile.ZipFile(download("images.zip")) as archive:
        assert archive.testzip() is None
        names = sorted(archive.namelist())
        assert names == [*(f"{i:05d}.png" for i in range(20)), "drawn.json", "latents.npy"]
        with Image.open(io.BytesIO(archive.read("00007.png"))) as picture:
            np.testing.assert_array_equal(np.asarray(picture), images[7])
        about = json.loads(archive.read("drawn.json"))
    assert (about["cluster"], about["seed"], about["sampler"]) == ("0", 3, done["sampler"])
    with Image.open(download("19.png")) as picture:
        np.testing.assert_array_equal(np.asarray(picture), images[19])


def test_the_first_images_of_a_draw_equal_a_draw_of_that_many(served):
    whole, few = (messages(served, cluster="0", num=num, seed=3)[-1]["done"] for num in (20, 7))
    answers = [
        served.client.get(f"/api/drawn/{done['id']}/{kind}", params=given)
        for kind in ("images.npy", "latents.npy")
        for done, given in ((whole, {"num": 7}), (few, {}), (few, {"num": "x"}))
    ]
    first, same, unread, *latents = (np.load(io.BytesIO(answer.content)) for answer in answers)
    np.testing.assert_array_equal(first, same)
    np.testing.assert_array_equal(unread, same)
    np.testing.assert_array_equal(latents[0], latents[1])


def test_queries_margins_and_leaves_are_drawn_and_a_mistake_is_one_line(served):
    for wanted in (
        {"margin": "0.5"},
        {"margin": "0.55:0.8"},
        {"cluster": "0/1"},
        {"cluster": "layer2-k3=1 & 0"},
    ):
        found = messages(served, **{"cluster": "0", "num": 2, **wanted})
        assert "done" in found[-1], found[-1]
    for wanted, said in (
        ({"cluster": "0 & 1"}, "--cluster=0 & 1 matches nothing"),
        ({"cluster": "0", "margin": "0.550.8"}, "as in --margin=0.6 or --margin=0.55:0.8"),
        ({"cluster": "0/7"}, "try --cluster=0/0"),
        ({"cluster": "nobody"}, "nobody"),
        ({"cluster": "7"}, "7"),
        ({"cluster": "0 &"}, "0 &"),
        ({"cluster": "0", "margin": "2"}, "margin"),
        ({"cluster": "0", "sampler": "magic"}, "--sampler=magic"),
    ):
        (error,) = messages(served, num=2, **wanted)
        assert said in error["error"]
        assert "\n" not in error["error"]


def test_a_name_is_in_the_folder_and_on_the_page_at_once_and_a_conflicting_one_is_not(served):
    answer = save(served, {"id": 0, "name": "left", "was": None}).json()
    text = f"{served.run.clustering.id}, cluster 0: 'left'"
    assert answer["lines"] == [{"text": text, "is_problem": False}]
    digest = served.run.clustering.digest
    assert [entry["name"] for entry in answer["entries"][digest]] == ["left", None]
    assert load_run(served.root).entries[0]["name"] == "left"
    assert 'value="left"' in served.client.get("/").text
    # The file is made again in the background, which the test client waits for.
    assert 'value="left"' in (served.root / "report" / "index.html").read_text()
    answer = save(served, {"id": 0, "name": "right", "was": None}).json()
    assert answer["lines"][0]["text"].startswith("conflict")
    assert answer["lines"][0]["is_problem"]
    assert answer["entries"][digest][0]["name"] == "left"
    assert messages(served, cluster="left", num=1)[-1]["done"]["name"] == "left"


def test_a_run_whose_clusters_are_missing_for_a_while_is_served_again_afterwards(served):
    path, away = served.root / "clusters.npz", served.root / "away"
    assert "done" in messages(served, cluster="0", num=1)[-1]
    path.rename(away)
    (error,) = messages(served, cluster="0", num=1)
    assert "\n" not in error["error"]
    assert "a bug" not in error["error"]
    answer = save(served, {"id": 0, "name": "left", "was": None})
    assert answer.status_code == 400
    assert answer.text.count("\n") == 1
    away.rename(path)
    assert "done" in messages(served, cluster="0", num=1)[-1]
    assert save(served, {"id": 0, "name": "left", "was": None}).status_code == 200
    assert load_run(served.root).entries[0]["name"] == "left"


def test_a_name_longer_than_the_field_allows_is_refused(served):
    answer = save(served, {"id": 0, "name": "x" * 3_000_000, "was": None})
    assert answer.status_code == 400
    assert "has 3,000,000 characters; expected 10,000 at most" in answer.text
    assert len(answer.text) < 300


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_names_are_shown_as_text_and_never_used_as_paths(served, name):
    assert save(served, {"id": 0, "name": name, "was": None}).status_code == 200
    page = served.client.get("/").text
    assert "<script>alert" not in page
    found = messages(served, cluster=name, num=1)
    done = found[-1].get("done")
    if done:  # a slash or a sign of queries is read as one, and says so
        assert re.fullmatch(r"[\w-]{1,60}", done["name"])


@pytest.mark.parametrize(
    ("status", "method", "path", "body", "kind"),
    [
        (404, "GET", "/api/drawn/none/images.zip", None, None),
        (404, "GET", "/api/drawn/..%2f..%2fconfig.json", None, None),
        (404, "GET", "/..%2f..%2fetc%2fpasswd", None, None),
        (404, "GET", "/clusters.json", None, None),
        (405, "GET", "/api/names", None, None),
        (405, "POST", "/", b"{}", "application/json"),
        (415, "POST", "/api/draw", b"cluster=0", "application/x-www-form-urlencoded"),
        (415, "POST", "/api/draw", b'{"cluster": "0"}', "text/plain"),
        (400, "POST", "/api/draw", b"{", "application/json"),
        (400, "POST", "/api/draw", b"[" * 100_000, "application/json"),
        (400, "POST", "/api/draw", b'{"cluster": 3}', "application/json"),
        (400, "PUT", "/api/names", b'{"format": "x"}', "application/json"),
        (400, "PUT", "/api/names", b"[]", "application/json"),
        (413, "PUT", "/api/names", b" " * (MAX_BODY + 1), "application/json"),
    ],
)
def test_invalid_requests_are_refused_in_one_line(served, status, method, path, body, kind):
    headers = {"content-type": kind} if kind else {}
    answer = served.client.request(method, path, content=body, headers=headers)
    assert answer.status_code == status
    assert answer.text.count("\n") <= 1
    assert "Traceback" not in answer.text


def test_names_of_another_run_are_refused(served):
    content = {"id": "x", "digest": "0" * 64, "clusters": [{"id": 0, "name": "a", "was": None}]}
    body = {"format": "cgjax names", "version": 1, "clusterings": [content]}
    answer = served.client.put("/api/names", json=body)
    assert answer.status_code == 400
    assert "other clusterings" in answer.text
