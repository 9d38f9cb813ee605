"""The files, members, settings and cited works that the pages name exist."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
from absl.flags import FlagValues

from cgjax.config import leaves, schema, training
from cgjax.config.plain import to_plain
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.contract import ensure_generator
from cgjax.generators.registry import load_generator
from cgjax.main import define_flags
from cgjax.modes import MODES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [
    path
    for folder in ("cgjax", "configs", "converters", "benchmarks", "launch", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
FOLDERS = [path.name for path in ROOT.iterdir() if path.is_dir()]


def name(path):
    return str(path.relative_to(ROOT))


def one_line(path):
    return re.sub(r"\s+", " ", path.read_text())


def missing_files(path):
    """Return the files of this repository that a page or a docstring names but that do not exist.

    A page may name a module of the library from `cgjax/` on or without it.
    """
    named = re.findall(
        r"(?<![\w/.<-])(?:[\w-]+/)+[\w.-]+\.(?:py|md|yaml|sbatch)\b", path.read_text()
    )
    bases = (ROOT, ROOT / "cgjax", path.parent)
    return {file for file in named if not any((base / file).is_file() for base in bases)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_that_a_page_names_exists(page):
    assert missing_files(page) == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_folder_that_a_page_names_exists(page):
    named = re.findall(r"`((?:[\w-]+/)+[\w-]*)`", page.read_text())
    ours = [folder for folder in named if folder.split("/")[0] in FOLDERS]
    assert [folder for folder in ours if not (ROOT / folder).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_library_member_that_a_page_names_exists(page):
    for dotted in re.findall(r"\b(?:python -m )?(cgjax(?:\.[A-Za-z_]\w*)+)", page.read_text()):
        member, parts = importlib.import_module("cgjax"), dotted.split(".")[1:]
        for i, part in enumerate(parts):
            if hasattr(member, part):
                member = getattr(member, part)
                continue
            module = ".".join(["cgjax", *parts[: i + 1]])
            if i < len(parts) - 1:
                member = importlib.import_module(module)
            else:
                assert importlib.util.find_spec(module)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_setting_that_a_page_names_is_in_the_schema(page):
    text = page.read_text()
    named = set(re.findall(r"config\.((?:[a-z]\w*)(?:\.[a-z]\w*)*)(?==|`|\s|\)|,|;)", text))
    sections = "|".join([*leaves.SECTIONS, *training.SECTIONS, "samplers"])
    named |= set(re.findall(rf"`((?:{sections})(?:\.[a-z]\w*)+)`", text))
    known = {*schema.LEAVES, *training.LEAVES, *leaves.SECTIONS, *training.SECTIONS}
    known |= {*(f"samplers.{s}" for s in leaves.SAMPLERS)}
    files = {path for path in named if path.split(".")[-1] in ("json", "csv", "txt", "npy", "png")}
    assert named - known - files == set()


def test_every_page_that_a_docstring_names_exists():
    named = {page for path in SOURCES for page in re.findall(r"\bdocs/\w+\.md", path.read_text())}
    assert {page for page in named if not (ROOT / page).is_file()} == set()


AUTHORS = r"[A-Z][a-z]+(?: et al\.| (?:&|and) [A-Z][a-z]+)? (?:19|20)\d\d"


def test_every_work_that_is_cited_is_in_the_references_and_every_reference_is_used():
    listed = set(re.findall(rf"\[({AUTHORS})\]", one_line(ROOT / "docs" / "references.md")))
    assert len(listed) > 30
    cited = set()
    for path in [*PAGES, *SOURCES]:
        if path.name != "references.md" and path != Path(__file__):
            for bracket in re.findall(r"\[([^\[\]]{4,160})\]", one_line(path)):
                cited |= set(re.findall(AUTHORS, bracket))
    assert cited - listed == set()
    assert listed - cited <= {"Li & Malik 2018"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_flag_and_mode_of_the_main_command_that_a_page_types_exists(page):
    values = FlagValues()
    define_flags(values)
    flags = set(values)
    for command in re.findall(r"python -m cgjax\.main ([^\n`]*)", page.read_text()):
        typed = re.findall(r"(?<![\w-])--(\w+)", command)
        assert {flag.removeprefix("no") for flag in typed} - flags <= {"verify"}, command
        assert set(re.findall(r"--mode=(\w+)", command)) <= set(MODES), command
        for path in re.findall(r"--config=(configs/[\w/]+\.py)", command):
            assert (ROOT / path).is_file(), command


def code_block(title, page="your_generator"):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    code = re.search(rf"```python\n(# {title}\n.*?)```", text, re.DOTALL).group(1)
    assert len(code.strip().splitlines()) < 26
    return code


def test_the_example_config_in_the_docs_is_valid():
    held = {}
    exec(code_block("my_stylegan2.py", "stylegan2"), held)
    for arg in ("", "quick"):
        schema.validate(schema.complete(to_plain(held["get_config"](arg))))


def test_the_example_edit_in_the_docs_moves_the_judged_attribute():
    held = {}
    exec(code_block("edit.py", "choosing"), held)
    before, after = (
        held["judge"](images)["brightness"].mean()
        for images in (held["gen"].images(held["z"]), held["images"])
    )
    assert after > before + 0.1


@pytest.mark.parametrize(
    "title", ["mine.py", pytest.param("torch_mine.py", marks=pytest.mark.torch)]
)
def test_the_example_generators_in_the_docs_satisfy_the_contract(title, tmp_path, monkeypatch):
    if title == "torch_mine.py":
        pytest.importorskip("torch")
    (tmp_path / f"of_docs_{title}").write_text(code_block(title))
    monkeypatch.syspath_prepend(tmp_path)
    factory = {"mine.py": "Mine", "torch_mine.py": "make"}[title]
    generator = load_generator(f"of_docs_{title.removesuffix('.py')}:{factory}")
    for layer in generator.layers:
        ensure_generator(ConditionedGenerator(generator, layer, {}, 8), title)
