"""What the README tells a newcomer to type is what runs."""

import importlib
import re
import subprocess
import sys

import jax

from cgjax.config.plain import to_plain
from cgjax.config.schema import complete, validate
from cgjax.generators.base import Generator
from tests.e2e.command import ROOT

README = (ROOT / "README.md").read_text()


def test_ci_takes_both_its_commands_out_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    extractions = re.findall(r"^command=\$\((sed .*)\)$", script, re.MULTILINE)
    found = [
        subprocess.run(["bash", "-c", e], cwd=ROOT, capture_output=True, text=True).stdout
        for e in extractions
    ]
    first, second = (text.rstrip("\n") for text in found)
    assert re.fullmatch(r"pip install \. && python -m cgjax\.main --config=\S+", first)
    assert re.fullmatch(r"pip install -e '\.\[test\]' && pytest -n auto .*", second)
    assert script.count('eval "$command') == 2


def test_the_first_command_is_a_config_whose_quick_variant_is_one_too():
    # CI runs it whole, in an environment that holds nothing else.
    path = re.search(r"python -m cgjax\.main --config=(\S+)\n", README).group(1)
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    for variant in ("", "quick"):
        validate(complete(to_plain(module.get_config(variant))))


def test_the_generator_of_ones_own_is_one_and_runs(tmp_path, monkeypatch):
    code = re.search(r"```python\n# mine\.py\n(.*?)```", README, re.DOTALL).group(1)
    assert len(code.strip().splitlines()) < 20
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    from mine import Mine  # type: ignore[import-not-found]

    gen = Mine()
    assert isinstance(gen, Generator)
    assert gen.images(gen.sample_latents(jax.random.key(0), 2)).shape == (2, 16, 16, 3)


def test_every_file_the_readme_links_to_is_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_core_imports_neither_torch_nor_faiss():
    source = (
        "import cgjax, cgjax.main, sys; print([m for m in ('torch','faiss') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
