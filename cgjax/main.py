"""The command line: `python -m cgjax.main --config=configs/dcgan_pose.py`.

JAX and whatever needs it is imported once flags and config are checked: `--help` and a mistake need
not wait for it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from logging import WARNING, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgjax.runtime.signals import handle_interrupts, quit_on_signals, raise_on_signals

if __name__ == "__main__":
    quit_on_signals()  # until there is something to save; importing takes a while

from absl import flags, logging
from ml_collections import config_flags

from cgjax.config.plain import differences, to_plain
from cgjax.config.schema import CLUSTERS, TRAINING, complete, kind_of, validate
from cgjax.errors import UserError
from cgjax.runtime.command import leave, run_command
from cgjax.runtime.files import check_folder
from cgjax.runtime.flag_errors import FLAG_ERRORS, explain
from cgjax.runtime.lock import FolderLock
from cgjax.runtime.mode_flags import WRITTEN, check_outside, check_read, path_of

if TYPE_CHECKING:
    from cgjax.runtime.processes import Processes
    from cgjax.runtime.signals import Interrupts
    from cgjax.stages.draw import Request

MODES = (
    "run",
    "check",
    "choose",
    "sweep",
    "sample",
    "evaluate",
    "compare",
    "report",
    "name",
    "serve",
    "assign",
)

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment; any leaf can be overridden.")
_MODE = flags.DEFINE_enum("mode", "run", MODES, "What to do.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder; runs/<config's name> by default."
)
_CLUSTER = flags.DEFINE_string(
    "cluster",
    None,
    "sample, name: id or name of a cluster, or a query such as 'layer2=0 & !layer4-k4=1'; 0 by "
    "default.",
)
_BALANCED = flags.DEFINE_bool(
    "balanced",
    False,
    "sample: as many images of every cluster of a clustering, the run's own or that of --cluster.",
)
_FIT_QUERY = flags.DEFINE_bool(
    "fit_query", False, "sample: first train a sampler on what --cluster asks for; it is kept."
)
_NAME = flags.DEFINE_string("name", None, "name: what to call --cluster; empty for no name.")
_FROM = flags.DEFINE_string("from", None, "name: the names.json that the page saved.")
_HOST = flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "serve: the address to listen on; 127.0.0.1 is reached from this machine only, 0.0.0.0 from "
    "any other.",
)
_PORT = flags.DEFINE_integer(
    "port",
    None,
    "serve: the port; 0 for a free one; by default always the same one for a run's folder.",
    lower_bound=0,
    upper_bound=65535,
)
_IMAGES = flags.DEFINE_string("images", None, "assign: the folder with the images.")
_NUM = flags.DEFINE_integer("num", 64, "sample: how many images.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "sample: folder for the images.")
_SAMPLER = flags.DEFINE_string("sampler", None, "sample: which sampler; the config's by default.")
_VERIFY = flags.DEFINE_bool("verify", True, "sample: redraw what falls outside the cluster.")
_MARGIN = flags.DEFINE_string(
    "margin",
    "0",
    "sample: keep only the part of the cluster above this quantile of its margins, or between two, "
    "LOW:HIGH.",
)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "sample: the same seed gives the same images.",
    lower_bound=0,
    upper_bound=2**32 - 1,
)
_MAX_CLUSTERS = flags.DEFINE_integer(
    "max_clusters", 16, "choose: most clusters to choose among.", lower_bound=1
)
_DEVICES = flags.DEFINE_integer(
    "devices",
    None,
    "Devices to work on; by default all accelerators, or the one CPU.",
    lower_bound=1,
)
_ALLOW = flags.DEFINE_bool(
    "allow_config_change", False, "Recompute what depends on a changed config."
)
_CACHE = flags.DEFINE_bool(
    "compilation_cache", True, "Keep compiled programs in the cache folder for the next command."
)


def workdir() -> Path:
    """Return --workdir, or runs/<name of the config file>."""
    if _WORKDIR.value:
        return path_of(_WORKDIR.value)
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
        return None if _CONFIG.value is None else to_plain(_CONFIG.value)
    except FLAG_ERRORS as error:
        raise explain(error, sys.argv) from error


def typed_config() -> list[str]:
    """Return the flags that gave the config, as they can be typed again."""
    if given_config() is None:
        return []
    words = sys.argv[1:]
    overrides = [
        # The value may stand behind a space.
        f"{word}={value}" if "=" not in word and value and not value.startswith("-") else word
        for word, value in zip(words, [*words[1:], ""], strict=True)
        if word.lstrip("-").startswith("config.")
    ]
    return [f"--config={config_flags.get_config_filename(flags.FLAGS['config'])}", *overrides]


def check_flags(argv: Sequence[str]) -> None:
    """Check what can be checked before anything is imported or read.

    Raises:
        UserError: the first mistake.
    """
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; every option starts with --")
    check_read(_MODE.value)
    root, config = workdir(), given_config()
    if config is not None:
        validate(complete(config))
        check_mode(kind_of(config))
    if _MODE.value == "sample":
        if not _OUT.value:
            raise UserError(
                "--out is missing: the folder for the images, for example --out=samples/"
            )
        check_folder(path_of(_OUT.value), "--out")
        check_outside(path_of(_OUT.value), root, WRITTEN, "--out")
        if _FIT_QUERY.value and _BALANCED.value:
            raise UserError(
                "--fit_query trains on one query and --balanced asks for many; give one"
            )
    elif _MODE.value not in ("check", "choose"):
        check_folder(root, "--workdir")
    if _MODE.value == "serve" and not all(map(find_spec, ("starlette", "uvicorn"))):
        raise UserError(
            "--mode=serve needs Starlette and uvicorn; type: pip install 'cgjax[serve]'"
        )
    if _MODE.value == "assign":
        if not _IMAGES.value or not path_of(_IMAGES.value).is_dir():
            given = "--images is missing"
            if _IMAGES.value:
                given = f"--images={_IMAGES.value} is no folder"
            raise UserError(f"{given}: name the one with the images, for example --images=photos/")
        check_outside(path_of(_IMAGES.value), root, ("", "assign"), "--images")
    if _MODE.value == "name":
        is_one = _NAME.value is not None and flags.FLAGS["cluster"].present
        if bool(_FROM.value) == is_one or (_FROM.value and _NAME.value is not None):
            raise UserError(
                "--mode=name: give --from=names.json, or else --cluster=0 and --name='facing left'"
            )


def check_mode(kind: str) -> None:
    """Check that a run of this kind has the mode.

    Raises:
        UserError: if it has not.
    """
    if kind == TRAINING and _MODE.value not in ("run", "assign"):
        raise UserError(
            f"--mode={_MODE.value} is for runs that cluster a generator, and this one trains one; "
            "leave it out"
        )


def sample() -> None:
    """Draw images of one cluster, a query, or every cluster alike, from a finished run."""
    from cgjax.run.run import load_run
    from cgjax.stages.draw import draw_balanced, draw_region

    if _FIT_QUERY.value:
        fit_query()
    draw = draw_balanced if _BALANCED.value else draw_region
    run, given = load_run(workdir()), given_config()
    changed = differences(run.config, complete(given)) if given else []
    if changed:
        logging.warning(
            "drawn as %s was made, not as --config says: %s", run.folder.root, "; ".join(changed)
        )
    draw(run, request())


def fit_query() -> None:
    """Train a sampler on a query, in the run's folder."""
    from cgjax.run.run import load_run
    from cgjax.runtime.processes import Processes
    from cgjax.stages import draw
    from cgjax.stages.pipeline import Pipeline

    with (
        FolderLock(workdir()) as lock,
        handle_interrupts(Processes(), lock.check) as interrupts,
    ):
        run = load_run(workdir())
        lock.acquire()
        draw.fit_query(Pipeline(run, interrupts, num_devices=_DEVICES.value), request())


def request() -> Request:
    """Return what the flags of --mode=sample ask for."""
    from cgjax.stages.draw import Request

    return Request(
        cluster=_CLUSTER.value,
        margin=_MARGIN.value,
        num=_NUM.value,
        sampler=_SAMPLER.value,
        verify=_VERIFY.value,
        seed=_SEED.value,
        out=path_of(_OUT.value),
    )


def check() -> None:
    """Check the config's generator and print what each of its layers costs."""
    from cgjax.stages.check import describe_generator

    print(describe_generator(given_or_saved_config()))


def choose() -> None:
    """Print how many clusters the config's layer holds, and why."""
    from cgjax.stages.choose import describe_choice

    print(describe_choice(given_or_saved_config(), _MAX_CLUSTERS.value))


def given_or_saved_config() -> dict[str, Any]:
    """Return the config of the flags, or else that of the run's folder."""
    from cgjax.run.folder import RunFolder, read_config

    config = given_config()
    return read_config(RunFolder(workdir())).config if config is None else complete(config)


def write(processes: Processes, lock: FolderLock, interrupts: Interrupts) -> None:
    """Run the stages that the mode asks for, in the run's folder."""
    import jax

    from cgjax.regions.naming import read_names
    from cgjax.run.opening import open_run
    from cgjax.stages.pipeline import Pipeline

    given = read_names(path_of(_FROM.value)) if _FROM.value else None
    run = open_run(
        workdir(),
        given_config(),
        mode=_MODE.value,
        allow_change=_ALLOW.value,
        processes=processes,
        lock=lock,
        typed=typed_config(),
    )
    pipeline = Pipeline(run, interrupts, processes, _DEVICES.value)
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    logging.info("%s, jax %s, in %s", devices, jax.__version__, pipeline.run.folder.root)
    if _MODE.value == "compare":
        table = pipeline.compare()
        if processes.is_first:
            print(table)
        return
    if _MODE.value == "sweep":
        print(pipeline.sweep())
        return
    if _MODE.value == "serve":
        from cgjax.serve.server import serve

        serve(pipeline, _HOST.value, _PORT.value)
        return
    if _MODE.value == "assign":
        print(pipeline.assign(path_of(_IMAGES.value)))
        return
    if _MODE.value == "name":
        print("\n".join(pipeline.name(given or (_CLUSTER.value or "0", _NAME.value or ""))))
        return
    if _MODE.value == "run":
        pipeline.run_all()
    else:
        if _MODE.value == "evaluate":
            pipeline.evaluate(again=True)
        pipeline.report()
    if processes.is_first:
        if pipeline.run.folder.summary.is_file():
            print(summary_table(json.loads(pipeline.run.folder.summary.read_text())))
        print(f"report: {pipeline.run.folder.report / 'index.html'}")


def train(processes: Processes, lock: FolderLock, interrupts: Interrupts) -> None:
    """Train a generator, in the run's folder, or assign images to the labels of a trained one."""
    from cgjax.run.training import check_alone, open_trained, open_training
    from cgjax.stages.assign import assign_to_labels
    from cgjax.stages.endtoend import TrainingStage, summary_text

    check_mode(TRAINING)
    check_alone(processes.num, _DEVICES.value)
    is_assigning = _MODE.value == "assign"
    run = (open_trained if is_assigning else open_training)(
        workdir(),
        given_config(),
        allow_change=_ALLOW.value,
        lock=lock,
        typed=typed_config(),
    )
    if is_assigning:
        print(assign_to_labels(run, interrupts, path_of(_IMAGES.value)))
        return
    print(summary_text(TrainingStage(run, interrupts).run_all()))
    print(f"figure: {run.figure}")


def kind_of_run() -> str:
    """Return which kind of run the config of the flags, or else that of the folder, asks for."""
    from cgjax.run.folder import RunFolder, saved_kind

    config = given_config()
    return saved_kind(RunFolder(workdir())) if config is None else kind_of(config)


def main(argv: Sequence[str]) -> None:
    """Dispatch on --mode."""
    check_flags(argv)

    from cgjax.runtime.cache import CompileCounter, keep_programs
    from cgjax.runtime.memory import keep_freed_memory
    from cgjax.runtime.processes import start_jax, start_processes

    getLogger("jax._src.xla_bridge").setLevel(WARNING)  # it lists the accelerators it looked for
    keep_freed_memory()
    folder = keep_programs() if _CACHE.value else None
    counter = CompileCounter()
    processes = start_processes(os.environ)
    start_jax()
    alone = {"sample": sample, "check": check, "choose": choose}
    if _MODE.value in alone:
        if processes.num > 1:
            raise UserError(f"--mode={_MODE.value} is for one process; leave the launcher out")
        raise_on_signals()
        alone[_MODE.value]()
    else:
        with (
            FolderLock(workdir()) as lock,
            handle_interrupts(processes, lock.check) as interrupts,
        ):
            work = {CLUSTERS: write, TRAINING: train}[kind_of_run()]
            work(processes, lock, interrupts)
    compiled, loaded = counter.counts()
    where = f" from {folder}" if folder else ""
    logging.info("%d programs compiled, %d loaded%s", compiled, loaded, where)


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
