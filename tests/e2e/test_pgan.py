"""A PGAN file is converted, run and sampled on the command line."""

import json

import pytest

from tests.e2e.command import cgjax
from tests.golden_cases import GOLDEN

SMALL = (
    "--config=configs/pgan_gender.py:quick",
    "--config.generator.batch=8",  # one size for most numbers of images: fewer programs
    "--config.latents.num=300",
    "--config.evaluate.num=40",
    "--config.evaluate.prior_images=64",
    "--config.evaluate.components=8",
)


@pytest.mark.torch
@pytest.mark.slow
def test_a_pgan_file_is_converted_clustered_and_sampled(tmp_path):
    source = GOLDEN / "pgan_zoo_a" / "checkpoint.pth"
    weights = tmp_path / "weights"
    done = cgjax("pgan", f"--src={source}", f"--dst={weights}", module="converters")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((weights / "generator.json").read_text())
    assert manifest["family"] == "pgan"
    assert len(manifest["source"]["sha256"]) == 64

    workdir = tmp_path / "run"
    done = cgjax(*SMALL, f"--config.generator.weights={weights}", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["layer"] == "format"

    out = tmp_path / "samples"
    done = cgjax("--mode=sample", f"--workdir={workdir}", "--cluster=1", "--num=5", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("*.png"))) == 5

    # Weights that changed under a run are never sampled from.
    path = weights / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    done = cgjax("--mode=sample", f"--workdir={workdir}", f"--out={tmp_path / 'x'}")
    assert done.returncode == 2
    assert "damaged" in done.stderr


def test_published_weights_without_a_network_are_one_line_that_says_what_to_do(tmp_path):
    done = cgjax("--config=configs/pgan_gender.py", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2, done.stderr
    message = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(message) == 1
    for part in ("celebaHQ_s6_i80000-6196db68.pth", "python -m converters pgan", "http"):
        assert part in message[0]
