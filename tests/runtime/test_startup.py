"""Help and mistakes import no numerical library."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"jax", "jaxlib", "flax", "optax", "orbax", "scipy", "jinja2", "torch", "faiss", "PIL"}
QUICK = "--config=configs/tiny.py:quick"


def run(*command, **more):
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
        capture_output=True,
        text=True,
        check=False,
    )


def imported(stderr):
    """Return the top-level packages in the output of -X importtime."""
    lines = [line for line in stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--help"], 0, None),
        ([], 2, "neither --config nor --workdir"),
        (["--no_such_flag"], 2, "no_such_flag"),
        (["--mode=dance"], 2, "--mode=dance"),
        (["--mode=sample", "--workdir=x"], 2, "--out is missing"),
        (["--mode=sample", "--workdir=x", "--out=/dev/null/x"], 2, "--out=/dev/null/x"),
        (
            ["--config=configs/nothing.py"],
            2,
            "--config=configs/nothing.py: No such file or directory; expected a file, for example "
            "--config=configs/dcgan_pose.py",
        ),
        (
            ["--config=other/tiny.py:quick"],
            2,
            "No such file or directory; expected a file, cgjax has --config=configs/tiny.py",
        ),
        ([QUICK, "--config.cluster.numclusters=3"], 2, "did you mean --config.cluster.num_cl"),
        ([QUICK, "--config.cluster.num_clusters=0"], 2, "--config.cluster.num_clusters=0"),
        ([QUICK, "--workdir=/dev/null/x"], 2, "--workdir=/dev/null/x"),
        ([QUICK, "--seed=1180591620717411303424"], 2, "--seed="),
        ([QUICK, "stray"], 2, "'stray'"),
        ([QUICK, "--seed=7"], 2, "did you mean --config.seed=7?"),
        ([QUICK, "--mode=report", "--out=x"], 2, "--out is for --mode=sample, and this is --mode"),
        (["--mode=name", "--workdir=x", "--cluster=", "--name=a"], 2, "--cluster= is empty"),
        (["--mode=sample", "--workdir=x", "--out=x"], 2, "is where the run"),
        (["--mode=sample", "--workdir=x", "--out=x/y/../samples/z"], 2, "is where the run"),
        (["--mode=assign", "--workdir=docs", "--images=docs/../docs"], 2, "is where the run"),
    ],
)
def test_help_and_mistakes_import_nothing_heavy(arguments, code, expected):
    done = run("-X", "importtime", "-m", "cgjax.main", *arguments)
    assert done.returncode == code, done.stderr
    assert not imported(done.stderr) & HEAVY
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    if expected is None:
        assert not lines
        assert "--mode" in done.stdout
    else:
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert expected in lines[0]


def test_the_library_imports_its_parts_on_first_access():
    code = """
import sys
import cgjax
assert {"kmeans", "load_generator", "load_run", "from_torch"} <= set(dir(cgjax))
assert "jax" not in sys.modules
cgjax.load_generator
assert "jax" in sys.modules
try:
    cgjax.no_such_name
except AttributeError as error:
    print(error)
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert "no_such_name" in done.stdout


def test_the_launcher_imports_nothing_heavy():
    done = run("-X", "importtime", "launch/local.py", "--processes=0")
    assert done.returncode == 2
    assert not imported(done.stderr) & HEAVY


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [("-m", "cgjax.main"), ("launch/local.py",)])
def test_ctrl_c_while_importing_is_one_line_and_130(command, number, tmp_path):
    package = tmp_path / "absl"
    package.mkdir()
    # The first package that both import: the signal comes while it is being imported.
    (package / "__init__.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    done = run(*command, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 130
    assert done.stderr == "interrupted: stopped before anything was done\n"
