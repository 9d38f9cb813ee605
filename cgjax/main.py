"""The command line: `python -m cgjax.main --config=configs/dcgan_pose.py`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging
from ml_collections import config_flags

from cgjax.config import plain as configuration
from cgjax.errors import UserError
from cgjax.run.opening import open_run
from cgjax.run.run import load_run
from cgjax.run.sampling import save_images
from cgjax.runtime.command import run_command
from cgjax.runtime.memory import keep_freed_memory
from cgjax.runtime.processes import leave, start_processes
from cgjax.runtime.signals import handle_interrupts
from cgjax.stages.pipeline import Pipeline

MODES = ("run", "sample", "evaluate", "compare", "report")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment; any leaf can be overridden.")
_MODE = flags.DEFINE_enum("mode", "run", MODES, "What to do.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder; runs/<config's name> by default."
)
_CLUSTER = flags.DEFINE_string("cluster", "0", "sample: id or name of the cluster.")
_NUM = flags.DEFINE_integer("num", 64, "sample: how many images.")
_OUT = flags.DEFINE_string("out", None, "sample: folder for the images.")
_SAMPLER = flags.DEFINE_string("sampler", None, "sample: which sampler; the config's by default.")
_VERIFY = flags.DEFINE_bool("verify", True, "sample: check membership and draw again where not.")
_MARGIN = flags.DEFINE_string(
    "margin",
    "0",
    "sample: keep only the part of the cluster above this quantile of its margins, or between two, "
    "LOW:HIGH.",
)
_SEED = flags.DEFINE_integer("seed", 0, "sample: the same seed gives the same images.")
_DEVICES = flags.DEFINE_integer(
    "devices", None, "Devices to work on; by default all accelerators, or the one CPU."
)
_ALLOW = flags.DEFINE_bool(
    "allow_config_change", False, "run: make anew what depends on a changed config."
)


def workdir() -> Path:
    """Return --workdir, or runs/<name of the config file>."""
    if _WORKDIR.value:
        return Path(_WORKDIR.value)
    if given_config() is None:
        raise UserError(
            "neither --config nor --workdir given; for example: python -m cgjax.main "
            "--config=configs/dcgan_pose.py"
        )
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    return Path("runs") / Path(name.split(":")[0]).stem


def given_config() -> dict[str, Any] | None:
    """Return the config of the flags as plain dicts, or None if no --config was given."""
    try:
        # A file that could not be loaded says so at the first look into the config, not before.
        return None if _CONFIG.value is None else configuration.to_plain(_CONFIG.value)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error


def sample() -> None:
    """Draw images of one cluster from a finished run."""
    run = load_run(workdir())
    if not _OUT.value:
        raise UserError("--out is missing: the folder for the images, for example --out=samples/")
    samples = run.sample(
        jax.random.key(_SEED.value),
        _CLUSTER.value,
        _NUM.value,
        _SAMPLER.value,
        _VERIFY.value,
        _MARGIN.value,
    )
    save_images(samples.images, samples.latents, Path(_OUT.value))
    checked = "" if samples.acceptance is None else f", acceptance {samples.acceptance:.3f}"
    print(f"{len(samples.images)} images in {_OUT.value}{checked}")


def main(argv: Sequence[str]) -> None:
    """Dispatch on --mode."""
    keep_freed_memory()
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; every option starts with --")
    processes = start_processes(os.environ)
    if _MODE.value == "sample":
        if processes.num > 1:
            raise UserError("--mode=sample is for one process; leave the launcher out")
        sample()
        return
    with handle_interrupts(processes) as interrupts:
        run = open_run(
            workdir(),
            given_config(),
            mode=_MODE.value,
            allow_change=_ALLOW.value,
            processes=processes,
        )
        pipeline = Pipeline(run, interrupts, processes, _DEVICES.value)
        devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
        logging.info("%s, jax %s, in %s", devices, jax.__version__, pipeline.run.folder.root)
        if _MODE.value == "compare":
            table = pipeline.compare()
            if processes.is_first:
                print(table)
            return
        if _MODE.value == "run":
            pipeline.run_all()
        else:
            if _MODE.value == "evaluate":
                pipeline.evaluate(again=True)
            pipeline.report()
        if not processes.is_first:
            return
        print(summary_table(json.loads(pipeline.run.folder.summary.read_text())))
        print(f"report: {pipeline.run.folder.report / 'index.html'}")


def summary_table(summary: Mapping[str, Any]) -> str:
    """Lay out a summary's samplers as text, one line a sampler and cluster."""
    columns = ["membership", "acceptance", "frechet", "frechet_verified", "frechet_floor"]
    columns += ["norm_ratio", "effective_rank"]
    lines = [f"{'sampler':<12}{'cluster':>8}" + "".join(f"{c:>18}" for c in columns)]
    if "distance" in summary:
        lines.insert(0, f"frechet: {summary['distance']}")
    for name, numbers in summary["samplers"].items():
        for c in range(summary["num_clusters"]):
            values = "".join(f"{numbers[column][c]:>18.3f}" for column in columns)
            lines.append(f"{name:<12}{c:>8}{values}")
    return "\n".join(lines)


if __name__ == "__main__":
    leave(lambda: run_command(main))
