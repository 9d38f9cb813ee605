"""A served page in a browser: names saved as they are typed; images drawn, stopped and saved."""

import contextlib
import json
import os
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cgjax.run.opening import load_run, open_run
from cgjax.runtime.signals import Interrupts
from cgjax.serve.app import Served
from cgjax.serve.server import listen_for, prepare
from cgjax.stages.pipeline import Pipeline
from tests.report.browser import open_page
from tests.report.test_browser import HARMFUL, download

pytestmark = pytest.mark.browser


@pytest.fixture
def context(browser):
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    yield context
    context.close()


@contextlib.contextmanager
def serving(root, port=0):
    pipeline = Pipeline(open_run(root, None, mode="serve"), Interrupts())
    served = Served(pipeline)
    with listen_for(root, "127.0.0.1", port) as listener:
        server, address = prepare(served, listener, "127.0.0.1")
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield SimpleNamespace(address=address, served=served)
        finally:
            server.should_exit = True
            thread.join()
            served.worker.close()
            pipeline.metrics.close()


def test_named_drawn_and_downloaded_and_after_a_restart_the_names_are_there(
    context, copied, tmp_path
):
    with serving(copied) as run:
        page, errors, requests = open_page(context, run.address)
        field = page.locator(".name input").first
        field.fill("facing left")
        page.get_by_text("All names are saved.").wait_for()
        assert load_run(copied).entries[0]["name"] == "facing left"
        for i, name in enumerate(HARMFUL):
            page.locator(".name input").nth(i + 1).fill(name)
            page.get_by_text("All names are saved.").wait_for()
        page.locator("[name=cluster]").fill("facing left")
        page.locator("[name=num]").fill("9")
        page.locator("[name=seed]").fill("5")
        page.get_by_role("button", name="Draw", exact=True).click()
        page.locator("[data-part=done]").wait_for()
        assert page.locator(".gallery img").count() == 9
        assert "seed 5" in page.locator("[data-part=said]").inner_text()
        with page.expect_download() as waiting:
            page.get_by_role("button", name="PNG files in a ZIP").click()
        assert waiting.value.suggested_filename == "facing-left-images.zip"
        waiting.value.save_as(tmp_path / "images.zip")
        with zipfile.ZipFile(tmp_path / "images.zip") as archive:
            assert json.loads(archive.read("drawn.json"))["cluster"] == "facing left"
        with page.expect_download() as waiting:
            page.locator(".gallery button").nth(8).click()
        assert waiting.value.suggested_filename == "facing-left-8.png"
        assert errors == []
        own = run.address.partition("?")[0]
        assert [url for url in requests if not url.startswith((own, "data:", "blob:"))] == []
    with serving(copied) as run:
        page, errors, _ = open_page(context, run.address)
        assert page.locator(".name input").first.input_value() == "facing left"
        for i, name in enumerate(HARMFUL):
            assert page.locator(".name input").nth(i + 1).input_value() == name.strip()
        assert page.evaluate("document.querySelectorAll('script').length") == 2
        assert errors == []


def test_of_two_people_who_name_a_cluster_the_second_is_told_of_the_conflict(context, copied):
    with serving(copied) as run:
        one, two = (open_page(context, run.address).page for _ in range(2))
        one.locator(".name input").first.fill("left")
        one.get_by_text("All names are saved.").wait_for()
        two.locator(".name input").first.fill("right")
        two.locator(".name input").nth(1).focus()
        two.get_by_text("conflict:").wait_for()
        assert load_run(copied).entries[0]["name"] == "left"
        assert two.locator(".name input").first.input_value() == "left"
        two.locator(".name input").first.fill("right")  # having seen the other name
        two.get_by_text("All names are saved.").wait_for()
        assert load_run(copied).entries[0]["name"] == "right"


def test_a_conflict_that_comes_while_typing_is_shown_when_the_field_is_left(context, copied):
    with serving(copied) as run:
        one, two = (open_page(context, run.address).page for _ in range(2))
        one.locator(".name input").first.fill("left")
        one.get_by_text("All names are saved.").wait_for()
        two.locator(".name input").first.fill("right")
        two.get_by_text("conflict:").wait_for()  # the field still has the focus
        two.locator(".name input").nth(1).focus()
        assert two.locator(".name input").first.input_value() == "left"


def test_names_can_be_downloaded_from_a_served_page_too(context, copied, tmp_path):
    with serving(copied) as run:
        page, errors, _ = open_page(context, run.address)
        page.locator(".name input").first.fill("left")
        (names, *_) = download(page, tmp_path / "names.json")
        assert names.clusters[0].name == "left"
        assert errors == []


def test_a_closed_tab_and_a_stopped_draw_end_their_work(context, copied):
    with serving(copied) as run:
        page = open_page(context, run.address).page
        for leave in (
            lambda: page.get_by_role("button", name="Stop").click(),
            lambda: page.close(),
        ):
            page.locator("[name=num]").fill("4096")
            page.get_by_role("button", name="Draw", exact=True).click()
            page.locator(".gallery img").first.wait_for()
            assert run.served.worker.num == 1
            leave()
            for _ in range(500):
                if run.served.worker.num == 0:
                    break
                time.sleep(0.01)
            assert run.served.worker.num == 0


def test_the_images_of_a_stopped_draw_can_be_saved_and_drawn_again(context, copied, tmp_path):
    with serving(copied) as run:
        page, errors, _ = open_page(context, run.address)
        page.locator("[name=num]").fill("4096")
        page.locator("[name=seed]").fill("7")
        page.get_by_role("button", name="Draw", exact=True).click()
        page.locator(".gallery img").first.wait_for()
        assert "seed 7" in page.locator("[data-part=said]").inner_text()
        assert "--num=4096" in page.locator("[data-part=command]").inner_text()
        page.get_by_role("button", name="Stop").click()
        page.locator("[data-part=done]").wait_for()
        num = page.locator(".gallery img").count()
        assert 0 < num < 4096
        said = page.locator("[data-part=said]").inner_text()
        assert said.startswith(f"Stopped after {num} of 4096 images")
        command = page.locator("[data-part=command]")
        assert f"--num={num} --seed=7" in command.inner_text()
        words = command.locator("span").all_inner_texts()
        assert " ".join(words) == command.text_content()
        assert words[-1].startswith("--out=")
        with page.expect_download() as waiting:
            page.get_by_role("button", name="latents.npy").click()
        waiting.value.save_as(tmp_path / "latents.npy")
        latents = np.load(tmp_path / "latents.npy")
        np.testing.assert_array_equal(
            latents, load_run(copied).sample(jax.random.key(7), 0, num).latents
        )
        with page.expect_download():
            page.locator(".gallery button").first.click()
        assert errors == []


def test_a_dial_at_rest_shows_new_images(context, copied):
    with serving(copied) as run:
        page, errors, _ = open_page(context, run.address)
        dial = page.locator(".card input[type=range]").first
        dial.focus()
        page.keyboard.press("ArrowRight")
        page.locator(".card").first.locator(".strip img").nth(11).wait_for()
        label = page.locator(".card").first.locator(".strip").get_attribute("aria-label")
        assert label == "12 new images above margin 0.05"
        assert errors == []


def test_without_the_command_the_page_says_so_and_keeps_what_was_typed(context, copied):
    with serving(copied) as run:
        page = open_page(context, run.address).page
    page.locator(".name input").first.fill("left")
    page.get_by_text("Not saved, but kept in this browser").wait_for()
    page.get_by_role("button", name="Draw", exact=True).click()
    page.get_by_text("is the command that serves this page still running?").first.wait_for()


def test_what_was_typed_without_the_command_is_saved_when_it_runs_again(context, copied):
    with serving(copied, port=None) as run:
        page = open_page(context, run.address).page
    page.locator(".name input").first.fill("left")
    page.get_by_text("Not saved, but kept in this browser").wait_for()
    page.close()
    with serving(copied, port=None) as run:
        page, errors, _ = open_page(context, run.address)
        page.get_by_text("All names are saved.").wait_for()
        assert page.locator(".name input").first.input_value() == "left"
        assert load_run(copied).entries[0]["name"] == "left"
        assert errors == []


def test_a_name_that_begins_like_a_conflict_message_is_saved(context, copied):
    with serving(copied) as run:
        page = open_page(context, run.address).page
        page.locator(".name input").first.fill("conflict: the photo was not taken indoors")
        page.get_by_text("All names are saved.").wait_for()


def test_a_range_of_margins_is_drawn_and_a_mistake_in_it_is_reported(context, copied):
    with serving(copied) as run:
        page, errors, _ = open_page(context, run.address)
        page.locator("[name=num]").fill("2")
        page.locator("[name=margin]").fill("0.55:0.8")
        page.get_by_role("button", name="Draw", exact=True).click()
        page.locator("[data-part=done]").wait_for()
        assert "--margin=0.55:0.8" in page.locator("[data-part=command]").inner_text()
        page.locator("[name=margin]").fill("0.8:0.5")
        page.get_by_role("button", name="Draw", exact=True).click()
        page.get_by_text("--margin=0.8:0.5: expected a quantile").wait_for()
        assert errors == []


@pytest.mark.skipif("AXE_JS" not in os.environ, reason="axe-core is not here")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(context, copied, scheme):
    with serving(copied) as run:
        page = open_page(context, run.address).page
        page.emulate_media(color_scheme=scheme)
        page.get_by_role("button", name="Draw", exact=True).click()
        page.locator("[data-part=done]").wait_for()
        page.evaluate(Path(os.environ["AXE_JS"]).read_text())
        found = page.evaluate("axe.run().then((r) => r.violations)")
        assert [(v["id"], v["impact"], v["nodes"][0]["html"][:120]) for v in found] == []
