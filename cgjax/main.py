"""Cluster-guided image synthesis.

    python -m cgjax.main --config=configs/dcgan_pose.py
    python -m cgjax.main --mode=sample --workdir=runs/dcgan_pose --cluster=0 --out=samples/

A flag whose text begins with names of modes is for these modes only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from logging import WARNING, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgjax.runtime.signals import Interrupts, handle_interrupts, quit_on_signals, raise_on_signals

if __name__ == "__main__":
    quit_on_signals()  # importing takes a while, and there is nothing to save yet

from absl import flags, logging
from ml_collections import config_flags

from cgjax.config.leaves import MAX_SEED
from cgjax.config.plain import to_plain
from cgjax.config.schema import kind_of
from cgjax.errors import UserError
from cgjax.modes import MODES, Command, action_for, check, check_flags_of
from cgjax.runtime.command import leave, run_command
from cgjax.runtime.files import user_path
from cgjax.runtime.flag_errors import CONFIG_FLAG, FLAG_ERRORS, explain
from cgjax.runtime.lock import FolderLock

if TYPE_CHECKING:
    from cgjax.runtime.processes import Processes


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags; `modes` says which modes read the second half of them."""
    config_flags.DEFINE_config_file(
        "config", None, "Config file; any setting can be overridden.", flag_values=values
    )
    text = partial(flags.DEFINE_string, flag_values=values)
    number = partial(flags.DEFINE_integer, flag_values=values)
    switch = partial(flags.DEFINE_bool, flag_values=values)
    flags.DEFINE_enum("mode", "run", list(MODES), "What to do.", flag_values=values)
    text("workdir", None, "The run's folder; runs/<name of the config> by default.")
    number(
        "devices",
        None,
        "Number of devices to use; by default all accelerators, or the one CPU.",
        lower_bound=1,
    )
    switch("allow_config_change", False, "Recompute what depends on a changed config.")
    switch("compilation_cache", True, "Keep compiled programs on disk for the next command.")

    text(
        "cluster",
        None,
        "sample, name: id or name of a cluster, or a query such as 'layer2=0 & !layer4-k4=1'; 0 by "
        "default.",
    )
    switch(
        "balanced",
        False,
        "sample: the same number of images from every cluster of the run's own clustering, or of "
        "the one that --cluster names.",
    )
    switch(
        "fit_query", False, "sample: first train a sampler on the query in --cluster, and keep it."
    )
    number("num", 64, "sample: number of images.", lower_bound=1)
    text("out", None, "sample: folder for the images.")
    text("sampler", None, "sample: name of the sampler; the config's by default.")
    switch("verify", True, "sample: redraw what falls outside the cluster.")
    text(
        "margin",
        "0",
        "sample: keep only the part of the cluster above this quantile of its margins, or between "
        "two, LOW:HIGH.",
    )
    number(
        "seed",
        0,
        "sample: the same seed gives the same images.",
        lower_bound=0,
        upper_bound=MAX_SEED,
    )
    text("name", None, "name: the new name of --cluster; empty to remove the name.")
    text("from", None, "name: the names.json that the page saved.")
    text(
        "host",
        "127.0.0.1",
        "serve: the address to listen on; 127.0.0.1 can be reached from this machine only, 0.0.0.0 "
        "from any.",
    )
    number(
        "port",
        None,
        "serve: the port; 0 for any free one; by default a fixed one for each run folder.",
        lower_bound=0,
        upper_bound=65535,
    )
    text("images", None, "assign: the folder with the images.")
    number(
        "max_clusters",
        16,
        "choose: the largest number of clusters to consider.",
        lower_bound=1,
    )


def main(argv: Sequence[str]) -> None:
    """Check the flags, start JAX, and run the mode.

    JAX and what needs it are imported after the checks: `--help` and mistakes do not wait for them.
    """
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; every option starts with --")
    options = flags.FLAGS
    mode = options.mode
    check_flags_of(mode, options)
    config = given_config(options)
    root = workdir(options, config)
    check(mode, options, root, config)

    from cgjax.runtime.cache import CompileCounter, keep_programs
    from cgjax.runtime.memory import keep_freed_memory
    from cgjax.runtime.processes import start_jax, start_processes

    getLogger("jax._src.xla_bridge").setLevel(WARNING)  # it lists the accelerators it looked for
    keep_freed_memory()
    folder = keep_programs() if options.compilation_cache else None
    counter = CompileCounter()
    processes = start_processes(os.environ)
    start_jax()
    lock = FolderLock(root)
    with lock, handle_signals(mode, processes, lock) as interrupts:
        action = action_for(mode, kind_of_run(root, config))
        action(
            Command(mode, options, root, config, typed_config(options), processes, lock, interrupts)
        )
    compiled, loaded = counter.counts()
    where = f" from {folder}" if folder else ""
    logging.info("%d programs compiled, %d loaded%s", compiled, loaded, where)


def handle_signals(
    mode: str, processes: Processes, lock: FolderLock
) -> AbstractContextManager[Interrupts]:
    """Return the block in which a mode runs.

    Raises:
        UserError: several processes, in a mode that is for one.
    """
    if MODES[mode].holds_lock:
        return handle_interrupts(processes, lock)
    if processes.num > 1:
        raise UserError(f"--mode={mode} is for one process; leave the launcher out")
    raise_on_signals()
    return nullcontext(Interrupts())


def kind_of_run(root: Path, config: dict[str, Any] | None) -> str:
    """Return the kind of run that the flags' config asks for, or else the folder's."""
    from cgjax.run.folder import RunFolder, saved_kind

    return saved_kind(RunFolder(root)) if config is None else kind_of(config)


def workdir(options: flags.FlagValues, config: dict[str, Any] | None) -> Path:
    """Return --workdir, or runs/<name of the config file>."""
    if options.workdir:
        return user_path(options.workdir)
    if config is None:
        raise UserError(
            "neither --config nor --workdir given; for example: python -m cgjax.main "
            "--config=configs/dcgan_pose.py"
        )
    name = config_flags.get_config_filename(options["config"])
    return Path("runs") / Path(name.split(":")[0]).stem


def given_config(options: flags.FlagValues) -> dict[str, Any] | None:
    """Return the config given by flags as plain dicts, or None without --config."""
    try:
        # The error of a file that could not be loaded is raised here, at the first access.
        return None if options.config is None else to_plain(options.config)
    except FLAG_ERRORS as error:
        raise explain(error, sys.argv) from error


def typed_config(options: flags.FlagValues) -> list[str]:
    """Return the flags that gave the config, as they can be typed again."""
    if options.config is None:
        return []
    overrides: dict[str, str] = {}  # of a flag given twice the last counts
    words = sys.argv[1:]
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if flag := CONFIG_FLAG.match(word):
            takes_next = "=" not in word and not options[flag[1]].boolean
            overrides[flag[1]] = f"{word}={value}" if takes_next else word
    file = config_flags.get_config_filename(options["config"])
    return [f"--config={file}", *overrides.values()]


if __name__ == "__main__":
    leave(lambda: run_command(main, define_flags))
