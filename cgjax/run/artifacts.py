"""Stages of a run: done when their manifest exists and nothing they depend on has changed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from cgjax.runtime.files import write_json
from cgjax.runtime.log import Metrics
from cgjax.runtime.memory import peak_rss_mb, reset_peak_rss
from cgjax.runtime.processes import Processes


class Stages:
    """The manifests of a run's stages, and the time and memory each took.

    Of several processes the first reads and writes them, and counts its own time and memory.
    """

    def __init__(self, folder: Path, metrics: Metrics, processes: Processes | None = None):
        self._folder, self._metrics = folder, metrics
        self._processes = processes or Processes()

    def result(self, name: str, fingerprint: str) -> dict[str, Any] | None:
        """Return what a stage left, or None if it is not done, or was done for something else."""
        return self._processes.first(lambda: self._result(name, fingerprint))

    def _result(self, name: str, fingerprint: str) -> dict[str, Any] | None:
        manifest = self._read(name)
        if manifest is None or manifest.get("fingerprint") != fingerprint:
            return None
        return dict(manifest["result"])

    def costs(self) -> dict[str, dict[str, float]]:
        """Return seconds and peak memory of every stage on record, in the order they were made."""
        manifests = [self._read(path.stem) for path in self._folder.glob("*.json")]
        known = sorted((m for m in manifests if m), key=lambda m: m["finished"])
        return {
            m["stage"]: {"seconds": m["seconds"], "peak_rss_mb": m["peak_rss_mb"]} for m in known
        }

    @contextlib.contextmanager
    def run(self, name: str, fingerprint: str) -> Iterator[dict[str, Any]]:
        """Time a stage and write its manifest when it ends well.

        Yields:
            A dict; what the stage puts there is what `result` returns later.
        """
        path = self._folder / f"{name}.json"
        if self._processes.is_first:
            path.unlink(missing_ok=True)
        logging.info("%s: started", name)
        begun, result = time.monotonic(), dict[str, Any]()
        reset_peak_rss()
        yield result
        if not self._processes.is_first:
            return
        seconds, peak = round(time.monotonic() - begun, 3), round(peak_rss_mb(), 1)
        manifest = {
            "stage": name,
            "fingerprint": fingerprint,
            "finished": time.time(),
            "seconds": seconds,
            "peak_rss_mb": peak,
            "result": result,
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(path, manifest)
        self._metrics.write(stage=name, seconds=seconds, peak_rss_mb=peak)
        logging.info("%s: %.1f s, peak memory %.0f MB", name, seconds, peak)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            manifest: dict[str, Any] = json.loads((self._folder / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        return manifest if manifest.keys() >= {"result", "finished", "seconds"} else None
