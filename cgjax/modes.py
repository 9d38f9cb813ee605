"""The modes of the command line: one record each, in `MODES`.

Only light modules are imported at the top. An action imports JAX and what needs it when it runs,
after the flags have been checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags, logging

from cgjax.config.plain import differences
from cgjax.config.schema import CLUSTERS, TRAINING, complete, kind_of, validate
from cgjax.errors import UserError
from cgjax.runtime.files import check_folder, check_outside, user_path
from cgjax.runtime.signals import handle_interrupts

if TYPE_CHECKING:
    from cgjax.run.run import Run
    from cgjax.run.training import TrainingRun
    from cgjax.runtime.lock import FolderLock
    from cgjax.runtime.processes import Processes
    from cgjax.runtime.signals import Interrupts
    from cgjax.stages.draw import Request
    from cgjax.stages.pipeline import Pipeline

RUN_FOLDERS = {
    *("", "assign", "checkpoints", "clusterings", "figures", "generator", "names", "page_images"),
    *("report", "samples", "stages", "tensorboard"),
}
"""The folders of a run that stages write to; "" is the run's folder itself."""


class Command(NamedTuple):
    """A command whose flags have been checked.

    Attributes:
        mode: its name.
        options: the values of all flags.
        root: the run's folder.
        config: the config given by flags, or None for the folder's own.
        typed: the flags that gave the config, as they can be typed again.
        processes: the processes of the run.
        lock: the folder's, not acquired yet.
        interrupts: tells whether to stop; in a mode without the lock Ctrl-C stops at once instead.
    """

    mode: str
    options: flags.FlagValues
    root: Path
    config: dict[str, Any] | None
    typed: list[str]
    processes: Processes
    lock: FolderLock
    interrupts: Interrupts


Action = Callable[[Command], None]


def _check_nothing(options: flags.FlagValues, root: Path) -> None:
    pass


class Mode(NamedTuple):
    """One mode.

    Attributes:
        actions: what it does in each kind of run that has it.
        flags: the flags it reads in addition to those that every mode reads.
        check: called with the flags and the run's folder before anything heavy is imported; raises
            a UserError.
        holds_lock: whether it writes to the run's folder: it then holds the folder's lock, finishes
            its unit of work when interrupted, and may be one of several processes.
    """

    actions: Mapping[str, Action]
    flags: tuple[str, ...] = ()
    check: Callable[[flags.FlagValues, Path], None] = _check_nothing
    holds_lock: bool = True


# Checks of the flags.


def check_flags_of(name: str, options: flags.FlagValues) -> None:
    """Check that a mode reads every flag that was given, and that every one has a value.

    Raises:
        UserError: the first flag for which this is not so.
    """
    optional = list(dict.fromkeys(flag for mode in MODES.values() for flag in mode.flags))
    for flag in optional:
        if options[flag].present and flag not in MODES[name].flags:
            readers = " or ".join(f"--mode={m}" for m, mode in MODES.items() if flag in mode.flags)
            hint = f" (did you mean --config.seed={options.seed}?)" if flag == "seed" else ""
            raise UserError(
                f"--{flag} is for {readers}, and this is --mode={name}: leave it out{hint}"
            )
    for flag in ("workdir", *optional):
        value = options[flag].value
        if value == "" and flag != "name":  # an empty name removes a name
            raise UserError(f"--{flag}= is empty: give a value, or leave it out")
        if str(value).startswith("--"):  # absl takes the next word, whatever it is
            raise UserError(f"--{flag} is followed by {value}; expected --{flag}=VALUE before it")


def check(
    name: str, options: flags.FlagValues, root: Path, config: Mapping[str, Any] | None
) -> None:
    """Check all that can be checked before JAX is imported and the run's folder is read.

    Args:
        name: the mode.
        options: the values of all flags.
        root: the run's folder.
        config: the config given by flags, or None.

    Raises:
        UserError: the first mistake.
    """
    if config is not None:
        validate(complete(config))
        action_for(name, kind_of(config))
    if MODES[name].holds_lock:
        check_folder(root, "--workdir")
    MODES[name].check(options, root)


def action_for(name: str, kind: str) -> Action:
    """Return what a mode does in one kind of run.

    Raises:
        UserError: runs of that kind do not have the mode.
    """
    actions = MODES[name].actions
    if kind not in actions:
        raise UserError(
            f"--mode={name} is for runs that cluster a generator, and this one trains one; "
            "leave --mode out"
        )
    return actions[kind]


def _check_sample(options: flags.FlagValues, root: Path) -> None:
    if not options.out:
        raise UserError("--out is missing: the folder for the images, for example --out=samples/")
    check_folder(user_path(options.out), "--out")
    check_outside(user_path(options.out), root, RUN_FOLDERS, "--out")
    if options.fit_query and options.balanced:
        raise UserError("--fit_query trains on one query and --balanced draws from many; give one")


def _check_serve(options: flags.FlagValues, root: Path) -> None:
    if not all(map(find_spec, ("starlette", "uvicorn"))):
        raise UserError(
            "--mode=serve needs Starlette and uvicorn; type: pip install 'cgjax[serve]'"
        )


def _check_assign(options: flags.FlagValues, root: Path) -> None:
    images = user_path(options.images or "")
    if not options.images or not images.is_dir():
        problem = f"={images} is not a folder" if options.images else " is missing"
        raise UserError(
            f"--images{problem}: name the folder with the images, for example --images=photos/"
        )
    check_outside(images, root, ("", "assign"), "--images")


def _check_name(options: flags.FlagValues, root: Path) -> None:
    names_one = options.name is not None and options["cluster"].present
    names_from_file = options["from"].value is not None
    if names_from_file == names_one or (names_from_file and options.name is not None):
        raise UserError(
            "--mode=name: give --from=names.json, or else --cluster=0 and --name='facing left'"
        )


# Actions of runs that cluster a generator.


def _open(command: Command) -> Pipeline:
    """Open the run for writing."""
    import jax

    from cgjax.run.opening import open_run
    from cgjax.runtime.mesh import run_mesh
    from cgjax.stages.pipeline import Pipeline

    run_mesh(command.options.devices)  # refuses --devices before anything is written
    run = open_run(
        command.root,
        command.config,
        mode=command.mode,
        allow_change=command.options.allow_config_change,
        processes=command.processes,
        lock=command.lock,
        typed=command.typed,
    )
    pipeline = Pipeline(run, command.interrupts, command.processes, command.options.devices)
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    logging.info("%s, jax %s, in %s", devices, jax.__version__, run.folder.root)
    return pipeline


def _run_all(command: Command) -> None:
    pipeline = _open(command)
    pipeline.run_all()
    _print_summary(pipeline)


def _evaluate(command: Command) -> None:
    pipeline = _open(command)
    pipeline.evaluate(again=True)
    pipeline.report()
    _print_summary(pipeline)


def _report(command: Command) -> None:
    pipeline = _open(command)
    pipeline.report()
    _print_summary(pipeline)


def _compare(command: Command) -> None:
    table = _open(command).compare()
    if command.processes.is_first:
        print(table)


def _sweep(command: Command) -> None:
    print(_open(command).sweep())


def _assign(command: Command) -> None:
    print(_open(command).assign(user_path(command.options.images)))


def _name(command: Command) -> None:
    """Name one cluster, or take over the names in a file."""
    from cgjax.regions.page_names import read_names

    options = command.options
    file = options["from"].value
    if file:
        names = read_names(user_path(file))  # before the run is opened: it may be a wrong file
        lines = _open(command).take_names(names)
    else:
        lines = _open(command).name_cluster(options.cluster, options.name)
    print("\n".join(lines))


def _serve(command: Command) -> None:
    pipeline = _open(command)

    from cgjax.serve.server import serve

    serve(pipeline, command.options.host, command.options.port)


def _check(command: Command) -> None:
    """Check the config's generator and print what each of its layers costs."""
    from cgjax.stages.check import describe_generator

    print(describe_generator(_config_of(command)))


def _choose(command: Command) -> None:
    """Print how many clusters the config's layer holds, and why."""
    from cgjax.stages.choose import describe_choice

    print(describe_choice(_config_of(command), command.options.max_clusters))


def _sample(command: Command) -> None:
    """Draw images of one cluster, of a query, or of every cluster, from a finished run."""
    from cgjax.stages.draw import draw_balanced, draw_region

    if command.options.fit_query:
        _fit_query(command)
    run = _load(command)
    changed = differences(run.config, complete(command.config)) if command.config else []
    if changed:
        logging.warning(
            "drawing with the config of %s, not with that of --config: %s",
            run.folder.root,
            "; ".join(changed),
        )
    draw = draw_balanced if command.options.balanced else draw_region
    draw(run, _request(command.options))


def _fit_query(command: Command) -> None:
    """Train a sampler on a query; it is saved in the run's folder."""
    from cgjax.stages.draw import query_to_fit
    from cgjax.stages.pipeline import Pipeline

    lock, options = command.lock, command.options
    with lock, handle_interrupts(command.processes, lock) as interrupts:
        run = _load(command)
        lock.acquire()
        pipeline = Pipeline(run, interrupts, num_devices=options.devices)
        pipeline.fit_in(*query_to_fit(run, _request(options)))


def _load(command: Command) -> Run:
    """Open a finished run, with the resources of `--config` if it is given."""
    from cgjax.run.opening import load_run

    return load_run(command.root, complete(command.config) if command.config else None)


def _request(options: flags.FlagValues) -> Request:
    """Return what the flags of --mode=sample ask for."""
    from cgjax.stages.draw import Request

    return Request(
        cluster=options.cluster,
        margin=options.margin,
        num=options.num,
        sampler=options.sampler,
        verify=options.verify,
        seed=options.seed,
        out=user_path(options.out),
    )


def _config_of(command: Command) -> dict[str, Any]:
    """Return the config given by flags, or else that of the run's folder."""
    from cgjax.run.folder import RunFolder, read_config

    return read_config(RunFolder(command.root)).config if command.config is None else command.config


def _print_summary(pipeline: Pipeline) -> None:
    from cgjax.stages.report import read_summary, summary_table

    if pipeline.processes.is_first:
        folder = pipeline.run.folder
        if folder.summary.is_file():
            print(summary_table(read_summary(folder)))
        print(f"report: {folder.page}")


# Actions of runs that train a generator.


def _train(command: Command) -> None:
    from cgjax.run.training import open_training
    from cgjax.stages.endtoend import TrainingStage, summary_text

    run = _open_alone(command, open_training)
    print(summary_text(TrainingStage(run, command.interrupts).run_all()))
    print(f"figure: {run.figure}")
    print(f"report: {run.folder.page}")


def _report_training(command: Command) -> None:
    from cgjax.run.training import open_trained
    from cgjax.stages.endtoend import summary_text
    from cgjax.stages.report import report_training

    run = _open_alone(command, open_trained)
    print(summary_text(report_training(run)))
    print(f"report: {run.folder.page}")


def _assign_to_labels(command: Command) -> None:
    """Assign images to the labels of a trained generator."""
    from cgjax.run.training import open_trained
    from cgjax.stages.assign import assign_to_labels

    run = _open_alone(command, open_trained)
    print(assign_to_labels(run, command.interrupts, user_path(command.options.images)))


def _open_alone(command: Command, open_folder: Callable[..., TrainingRun]) -> TrainingRun:
    """Open a run that works in one process on one device."""
    from cgjax.run.training import check_alone

    check_alone(command.processes.num, command.options.devices)
    return open_folder(
        command.root,
        command.config,
        allow_change=command.options.allow_config_change,
        lock=command.lock,
        typed=command.typed,
    )


MODES = {
    "run": Mode({CLUSTERS: _run_all, TRAINING: _train}),
    "check": Mode({CLUSTERS: _check}, holds_lock=False),
    "choose": Mode({CLUSTERS: _choose}, flags=("max_clusters",), holds_lock=False),
    "sweep": Mode({CLUSTERS: _sweep}),
    "sample": Mode(
        {CLUSTERS: _sample},
        flags=(
            *("balanced", "fit_query", "num", "out", "sampler", "verify", "margin", "seed"),
            "cluster",
        ),
        check=_check_sample,
        holds_lock=False,
    ),
    "evaluate": Mode({CLUSTERS: _evaluate}),
    "compare": Mode({CLUSTERS: _compare}),
    "report": Mode({CLUSTERS: _report, TRAINING: _report_training}),
    "name": Mode({CLUSTERS: _name}, flags=("cluster", "name", "from"), check=_check_name),
    "serve": Mode({CLUSTERS: _serve}, flags=("host", "port"), check=_check_serve),
    "assign": Mode(
        {CLUSTERS: _assign, TRAINING: _assign_to_labels}, flags=("images",), check=_check_assign
    ),
}
"""Every mode; the first is the default."""
