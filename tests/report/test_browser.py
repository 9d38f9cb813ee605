"""The page in a browser: from a file, without a network, by keyboard alone, with harmful names."""

import contextlib
import json
import os
from pathlib import Path

import pytest

from cgjax.regions.page_names import read_names
from cgjax.run.opening import load_run
from cgjax.stages.pipeline import Pipeline
from tests.report.browser import open_page
from tests.report.conftest import work

pytestmark = pytest.mark.browser

HARMFUL = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "</script>" + "x" * 9000,
    "\u202e\u05e9\u05dc\u05d5\u05dd/../../etc",
)


@pytest.fixture
def context(browser):
    context = browser.new_context(accept_downloads=True, offline=True)
    context.set_default_timeout(10_000)
    yield context
    context.close()


def open_report(context, root):
    return open_page(context, root / "report" / "index.html")


def download(page, path):
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download names").click()
    waiting.value.save_as(path)
    return read_names(path)


def wait_for_names(page, *names):
    """Wait until the first name fields show these names."""
    page.wait_for_function(
        """(names) => {
            const fields = [...document.querySelectorAll(".name input")];
            return names.every((name, i) => fields[i].value === name);
        }""",
        arg=list(names),
    )


def stored(page):
    return page.evaluate("JSON.stringify(localStorage)")


def test_two_tabs_of_a_page_share_one_draft(browser, finished):
    from playwright.sync_api import TimeoutError as WaitedInVain

    # In one of some two hundred new contexts, Chromium gives two tabs storages of their own: what
    # one writes never reaches the other. That says nothing of the page: another context is taken.
    for _ in range(3):
        with contextlib.closing(browser.new_context(offline=True)) as context:
            context.set_default_timeout(10_000)
            one, two = (open_report(context, finished).page for _ in range(2))
            try:
                one.locator(".name input").first.fill("left")
                wait_for_names(two, "left", "")
                two.locator(".name input").nth(1).fill("right")
                wait_for_names(one, "left", "right")
                two.reload()
                wait_for_names(two, "left", "right")
                return
            except WaitedInVain:
                if stored(one) == stored(two):
                    raise
    pytest.fail("the tabs of three contexts had storages of their own")


def test_every_image_loads_and_the_page_requests_and_logs_nothing(context, finished):
    page, errors, requests = open_report(context, finished)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    broken = page.evaluate(
        """async () => {
            const urls = new Set();
            for (const e of document.querySelectorAll("img")) urls.add(e.src);
            for (const e of document.querySelectorAll("svg image")) urls.add(e.href.baseVal);
            for (const e of document.querySelectorAll(".t")) {
                urls.add(getComputedStyle(e).backgroundImage.replace(/^url\\("|"\\)$/g, ""));
            }
            const wrong = [];
            for (const url of urls) {
                const image = new Image();
                image.src = url;
                try { await image.decode(); } catch { wrong.push(url.slice(0, 60)); }
            }
            return [urls.size, wrong];
        }"""
    )
    assert broken[0] >= 8
    assert broken[1] == []
    assert errors == []
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
    assert sum(url.startswith("file:") for url in requests) == 1


def test_all_clusters_are_named_by_keyboard_alone_and_the_names_are_merged(
    context, copied, tmp_path
):
    page, errors, _ = open_report(context, copied)
    page.keyboard.press("Tab")
    for _ in range(60):
        if page.evaluate("document.activeElement.matches('.name input')"):
            break
        page.keyboard.press("Tab")
    for i, key in enumerate(("Tab", "Enter", "Tab", "Enter")):  # two clusters, and two inside
        page.keyboard.type(f"name {i}")
        page.keyboard.press(key)
    assert page.locator("#progress").inner_text().startswith("4 of ")
    button = page.locator("#download")
    for _ in range(60):
        if button.evaluate("(e) => e === document.activeElement"):
            break
        page.keyboard.press("Shift+Tab")
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    path = tmp_path / "names.json"
    waiting.value.save_as(path)
    assert waiting.value.suggested_filename == "names.json"
    lines = work(copied, lambda pipeline: pipeline.take_names(read_names(path)), "name")
    assert [line.split(": ")[1] for line in lines] == [f"'name {i}'" for i in range(4)]
    run = load_run(copied)
    assert [entry["name"] for entry in run.entries] == ["name 0", "name 1"]
    assert str(run.region("name 0/name 3")) == str(run.region("0/1"))
    assert errors == []
    assert "name 3" in (copied / "report" / "index.html").read_text()


def test_a_draft_survives_a_reload_undo_reverts_it_and_no_proposal_is_a_name(context, finished):
    page, errors, _ = open_report(context, finished)
    field = page.locator(".name input").first
    assert field.input_value() == ""
    field.fill("left")
    field.press("Enter")
    page.locator(".nothing").nth(1).click()
    page.reload()
    # A browser may hand over what the old page wrote last after the new one has started.
    wait_for_names(page, "left", "means nothing")
    page.locator(".nothing").first.click()
    assert page.locator(".name input").first.input_value() == "means nothing"
    page.get_by_role("button", name="Undo").click()
    assert page.locator(".name input").first.input_value() == "left"
    assert errors == []


def test_a_draft_gives_way_to_a_name_given_to_the_run_since(context, copied, tmp_path):
    page = open_report(context, copied).page
    page.locator(".name input").first.fill("typed here")
    page.locator(".name input").nth(1).fill("same")
    work(copied, lambda pipeline: pipeline.name_cluster("0", "given elsewhere"), "name")
    work(copied, lambda pipeline: pipeline.name_cluster("1", "same"), "name")
    page.reload()
    assert page.locator(".name input").first.input_value() == "given elsewhere"
    dropped = page.locator("#dropped").inner_text()
    assert "“typed here” for cluster 0" in dropped
    assert "same" not in dropped
    given = download(page, tmp_path / "names.json")
    lines = work(copied, lambda pipeline: pipeline.take_names(given), "name")
    assert lines == ["nothing new in names.json"]
    page.reload()
    assert not page.locator("#dropped").is_visible()


def test_images_that_do_not_fit_a_name_are_counted_with_their_interval(context, copied, tmp_path):
    page, errors, _ = open_report(context, copied)
    page.locator(".name input").first.fill("left")
    page.locator(".name input").first.press("Escape")  # to the card's images
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("End")
    page.keyboard.press("Space")
    line = page.locator(".judged").first.inner_text()
    (given, *_) = download(page, tmp_path / "names.json")
    judged = given.clusters[0].judged
    assert (judged["shown"], len(judged["contradict"])) == (24, 2)
    assert "22 of 24" in line
    assert f"({100 * judged['low']:.0f}% to {100 * judged['high']:.0f}%)" in line
    work(copied, lambda pipeline: pipeline.take_names(read_names(tmp_path / "names.json")), "name")
    entry = json.loads((copied / "clusters.json").read_text())[0]
    assert entry["judged"] == judged
    assert errors == []


@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_name_does_nothing_whether_typed_or_stored(name, context, copied):
    entries = json.loads((copied / "clusters.json").read_text())
    entries[0]["name"] = name
    (copied / "clusters.json").write_text(json.dumps(entries))
    work(copied, Pipeline.report, "report")
    page, errors, requests = open_report(context, copied)
    assert page.locator(".name input").first.input_value() == name
    page.locator(".name input").nth(1).fill(name)
    page.locator(".name input").nth(1).press("Enter")
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert errors == []
    assert len([url for url in requests if not url.startswith("data:")]) == 1


def test_a_dot_shows_its_image_and_leads_to_its_card(context, finished):
    page, errors, _ = open_report(context, finished)
    canvas = page.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('canvas').height > 200")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    peek = page.locator(".peek").first
    assert peek.is_visible()
    name = peek.locator("span").inner_text()
    page.keyboard.press("Enter")
    cluster = page.evaluate("document.activeElement.closest('.card').dataset.cluster")
    assert name == f"cluster {cluster}"
    assert errors == []


def test_the_dial_shows_members_above_a_margin_and_the_command_to_draw_them(context, finished):
    page, errors, _ = open_report(context, finished)
    card = page.locator(".card").first
    before = card.locator(".strip i").evaluate_all("(tiles) => tiles.map((t) => t.className)")
    card.locator("input[type=range]").fill("80")
    after = card.locator(".strip i").evaluate_all("(tiles) => tiles.map((t) => t.className)")
    assert len(before) == 12
    assert after
    assert after != before
    assert card.locator("code").inner_text().endswith("--margin=0.8")
    assert errors == []


def test_on_paper_every_section_is_open_and_every_plot_is_drawn_in_dark_colours(browser, finished):
    context = browser.new_context(offline=True, color_scheme="dark")
    page = open_report(context, finished).page
    page.set_viewport_size({"width": 1280, "height": 300})
    dark = """() => [...document.querySelectorAll("canvas")].map((c) => {
        const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
        let num = 0;
        for (let i = 0; i < data.length; i += 4)
            num += data[i] < 80 && data[i + 1] < 80 && data[i + 2] < 80 && data[i + 3] > 200;
        return num > 100;
    })"""
    assert page.evaluate("document.querySelectorAll('canvas').length") >= 2
    assert not any(page.evaluate(dark))
    closed = "document.querySelectorAll('details:not([open])').length"
    num_closed = page.evaluate(closed)
    assert num_closed >= 3
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(closed) == 0
    assert all(page.evaluate(dark))
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(closed) == num_closed
    assert not any(page.evaluate(dark))
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(scheme, browser, finished):
    script = os.environ.get("AXE_JS")
    if not script:
        pytest.skip("AXE_JS is not set to the axe.min.js of `npm pack axe-core`")
    context = browser.new_context(offline=True, bypass_csp=True, color_scheme=scheme)
    page = open_report(context, finished).page
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.evaluate(Path(script).read_text())
    found = page.evaluate("axe.run()")["violations"]
    context.close()
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


@pytest.mark.parametrize("width", [360, 1280])
def test_no_screen_width_needs_horizontal_scrolling(width, context, finished):
    page, _, _ = open_report(context, finished)
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
