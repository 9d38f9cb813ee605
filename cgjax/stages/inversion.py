"""The stage that makes an inverter: an encoder, trained once per run, and how well it inverts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.labelled import num_labels_of
from cgjax.inversion.encoder import Encoder
from cgjax.inversion.held_out import NO_LIMITS, HeldOut, Limits
from cgjax.inversion.inverter import Inverted, Inverter
from cgjax.inversion.learning import EncoderTraining, State, learn
from cgjax.inversion.prior import Prior, prior_of
from cgjax.inversion.search import Search
from cgjax.run.folder import RunFolder
from cgjax.run.inversions import Inversions
from cgjax.run.manifests import Manifests
from cgjax.run.places import ENCODER, HELD_OUT
from cgjax.runtime.array_files import write_npz
from cgjax.runtime.checkpoints import Checkpoints, Step
from cgjax.runtime.keys import named_key
from cgjax.runtime.log import Progress
from cgjax.runtime.png import as_uint8, from_uint8
from cgjax.runtime.signals import Interrupts
from cgjax.stages.graph import Maker

SAVES = 10
"""How often an encoder is saved in training; a kill loses at most the steps between two saves."""

PRIOR_LATENTS = 4096
"""Latents from which the shape of the prior is estimated."""

BATCH = 32
"""The most images that are inverted together; the inversions are saved after each batch."""

ReadImages = Callable[[Sequence[int]], Float[np.ndarray, "n s s c"]]
"""Positions of images in a list -> the images."""


@runtime_checkable
class Invertible(Protocol):
    """A run whose generator can be inverted.

    Attributes:
        folder: the paths.
        config: nested plain dicts, of which `assign` is read.
        generator: the generator.
        root_key: the root of every random number.
        manifests: which artifacts are there and current.
    """

    folder: RunFolder
    config: dict[str, Any]
    generator: ConditionedGenerator
    root_key: PRNGKeyArray
    manifests: Manifests


class InversionStage:
    """The inverter of a run, made if it is not current.

    Attributes:
        inversions: found so far.
    """

    def __init__(self, run: Invertible, maker: Maker, interrupts: Interrupts):
        """Prepare; nothing is read or written."""
        self.run, self.maker, self.interrupts = run, maker, interrupts
        self.settings = run.config["assign"]
        folder = run.folder.encoder
        self._saved = Checkpoints(folder)
        self._key = run.manifests.graph[ENCODER].key
        self.inversions = Inversions(folder / "inversions.npz", run.manifests.graph[HELD_OUT].key)

    def inverter(self) -> Inverter:
        """Return the inverter; trains its encoder first if it is not trained.

        Raises:
            UserError: a loss that is not finite, a full disk.
            Interrupted: asked to stop; saved.
        """
        generator = self.run.generator
        sample = generator.sample_latents(
            named_key(self.run.root_key, "encoder", "prior"), PRIOR_LATENTS
        )
        prior = prior_of(
            sample,
            only_direction=generator.normalizes_latent,
            num_labels=num_labels_of(generator.gen),
        )
        training = self._encoder_training(prior)
        state = self._trained(training)
        sizes = (self.settings[name] for name in ("steps", "step_size", "feature_weight"))
        search = Search(training.encoder, *sizes)
        inverter = Inverter(generator, search, state["params"], prior)
        if inverter.function is None:
            logging.warning(
                "this generator cannot be differentiated: JAX cannot, and it has no pull_back(z); "
                "latents are the encoder's guesses, and reconstructions are less accurate"
            )
        return inverter

    def held_out(self, inverter: Inverter) -> HeldOut:
        """Return how the generator's own images are inverted; measures it if it is not current.

        Raises:
            Interrupted: asked to stop; saved.
        """
        path = self.run.folder.held_out
        if self.maker.result(HELD_OUT) is None:
            with self.maker.making(HELD_OUT):
                write_npz(path, **self._invert_own(inverter)._asdict())
        with np.load(path, allow_pickle=False) as arrays:
            return HeldOut(**{name: arrays[name] for name in HeldOut._fields})

    def invert(
        self,
        inverter: Inverter,
        ids: Sequence[str],
        read: ReadImages,
        what: str,
        limits: Limits = NO_LIMITS,
    ) -> Inverted:
        """Invert images that were not inverted before, and save after each batch.

        Args:
            inverter: of this run.
            ids: of the images; equal for equal content.
            read: of positions in `ids`.
            what: the images are, for the progress.
            limits: images beyond them get further starts.

        Raises:
            Interrupted: asked to stop; saved.
        """
        missing = self.inversions.missing(ids)
        places = {id_: i for i, id_ in enumerate(ids)}
        progress = Progress(f"invert {what}", len(missing))
        progress.update(0)
        batch = min(BATCH, self.run.generator.batch)
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            images = read([places[id_] for id_ in part])
            inverted = inverter.invert(images)
            for number in range(self.settings["restarts"]):
                bad = np.flatnonzero(~limits.keeps(inverted.errors, inverted.features))
                if len(bad):
                    some = Inverted(*(values[bad] for values in inverted))
                    keys = [self._key_of(part[i], number) for i in bad]
                    better = inverter.try_again(images[bad], some, keys)
                    for values, others in zip(inverted, better, strict=True):
                        values[bad] = others
            self.inversions.add(part, inverted)
            progress.update(start + len(part), f", median error {np.median(inverted.errors):.4f}")
            self.interrupts.check(f"{start + len(part)} of {len(missing)} images are inverted")
        return self.inversions.of(ids)

    def _key_of(self, id_: str, number: int) -> PRNGKeyArray:
        """Return the key of an image's further start, independent of the images beside it."""
        return named_key(self.run.root_key, "invert", _number(id_), number)

    def _invert_own(self, inverter: Inverter) -> HeldOut:
        num = self.settings["held_out"]
        key = named_key(self.run.root_key, "encoder", "held out")
        truth = np.asarray(self.run.generator.sample_latents(key, num))

        def read(places: Sequence[int]) -> Float[np.ndarray, "n s s c"]:
            # As they would come from a file.
            return from_uint8(as_uint8(self.run.generator.images(truth[list(places)])))

        ids = [f"held out {i}" for i in range(num)]
        inverted = self.invert(inverter, ids, read, "held-out images")
        return HeldOut(truth, **inverted._asdict())

    def _encoder_training(self, prior: Prior) -> EncoderTraining:
        generator, settings = self.run.generator, self.settings
        size, _, channels = generator.image_shape
        encoder = Encoder(
            generator.gen.latent_dim,
            size,
            channels,
            settings["width"],
            norm=prior.norm,
            num_labels=num_labels_of(generator.gen),
        )
        steps = max(1, settings["samples"] // settings["batch"])
        return EncoderTraining(encoder, steps, settings["learning_rate"])

    def _is_own(self, step: Step) -> bool:
        return step.metadata.get("key") == self._key

    def _trained(self, training: EncoderTraining) -> State:
        last = self._saved.last(training.num_steps, self._is_own)
        is_done = last is not None and self._saved.is_whole(last.number)
        if is_done and self.maker.result(ENCODER) is not None:
            shapes = jax.eval_shape(training.init, jax.random.key(0))
            state: State = self._saved.restore(training.num_steps, {"state": shapes})["state"]
            return state
        with self.maker.making(ENCODER) as result:
            state, result["seconds"] = self._train(training)
        return state

    def _train(self, training: EncoderTraining) -> tuple[State, float]:
        """Train to the end; return the state and the seconds, earlier attempts included."""
        run, begun, spent, first = self.run, time.monotonic(), 0.0, 0
        key = named_key(run.root_key, "encoder")
        state = training.init(named_key(key, "init"))
        newest = self._saved.restore_newest({"state": state}, self._is_own)
        if newest is not None:
            step, tree = newest
            state, first, spent = tree["state"], step.number, float(step.metadata["seconds"])
            logging.info("encoder: resuming at step %d", first)
        self.maker.metrics.forget(
            lambda line: line.get("stage") == "encoder" and line.get("step", 0) > first
        )
        every = -(-training.num_steps // SAVES)
        progress = Progress("encoder: step", training.num_steps)
        losses = []
        for number in range(first, training.num_steps):
            rows = self.settings["batch"]
            z = run.generator.sample_latents(named_key(key, "step", number), rows)
            images = jnp.asarray(run.generator.images(np.asarray(z)))
            state, loss = learn(state, z, images, training=training)
            losses.append(float(loss))
            done = number + 1
            if not np.isfinite(losses[-1]):
                raise UserError(
                    f"the encoder's loss became {losses[-1]} in step {done}; lower "
                    "--config.assign.learning_rate"
                )
            progress.update(done, f", loss {losses[-1]:.4f}")
            is_stopped = self.interrupts.agreed()
            if done % every == 0 or done == training.num_steps or is_stopped:
                self.maker.metrics.write(stage="encoder", step=done, loss=np.mean(losses))
                losses = []
                seconds = spent + time.monotonic() - begun
                self._saved.save(done, {"state": state}, {"key": self._key, "seconds": seconds})
            if is_stopped:
                self.interrupts.stop(f"the encoder is saved at step {done}")
        return state, round(spent + time.monotonic() - begun, 3)


def _number(text: str) -> int:
    """Return a number below 2**31, a hash of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
