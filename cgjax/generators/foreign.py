"""Checks around a user's own generator: everything it declares and returns is checked at each call.

`CheckedGenerator` wraps a user's object, so that the rest of the package can rely on the protocol:
float32 JAX arrays, one row per input row, in the shapes that the object's members state. An
exception of the object becomes a `ForeignError`, whose one line says whose code raised it. Whether
values are a function of the latent and in range is checked by `contract`; whether they are finite,
where they reach the host (`ConditionedGenerator`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.errors import ForeignError, UserError, foreign_code
from cgjax.generators.arrays import describe_kind, describe_shape, to_array
from cgjax.generators.base import PretrainedGenerator, layer_index
from cgjax.numerics.arguments import is_whole, shown

MEMBERS = ("layers", "latent_dim", "image_size", "sample_latents", "features", "images")
CHANNELS = (1, 2, 3, 4)
KEYWORDS = ("condition", "truncation", "truncation_layers", "noise")
"""What a run may pass to a generator's methods, by the names of the config's leaves."""
_ABSENT = object()
README = "the README's section 'Your own generator' shows one"


class CannotResume(UserError):
    """The generator cannot run the rest of its network from a layer's activation."""


class CheckedGenerator:
    """A user's generator, with everything it returns checked.

    Attributes other than the protocol's are passed through to the object.

    Attributes:
        own: the user's object.
        name: the generator's name in messages: its import path, or its class.
        layers: its layers, as a tuple.
        latent_dim: length of a latent.
        image_size: height and width of an image.
    """

    def __init__(self, own: Any, name: str | None = None):
        """Check the types of the members; nothing is called.

        Args:
            own: any object.
            name: its name in messages; default: its class.

        Raises:
            UserError: a member is missing or of the wrong type.
        """
        self.own = own
        self.name = name or f"{type(own).__module__}:{type(own).__qualname__}"
        members = {member: self._member(member) for member in MEMBERS}
        missing = [member for member, value in members.items() if value is None]
        if missing:
            raise UserError(
                f"{self.name} ({describe_kind(own)}) lacks {', '.join(missing)}: it is not a "
                f"generator; {README}"
            )
        for member in MEMBERS[3:]:
            if not callable(members[member]):
                raise UserError(
                    f"{self.name}.{member} is {describe_kind(members[member])}; expected a method"
                )
        self.layers = self._read_layers(members["layers"])
        self.latent_dim = self._read_size("latent_dim", members["latent_dim"])
        self.image_size = self._read_size("image_size", members["image_size"])
        if callable(self._member("resume")):
            self.resume = self._resume

    def __getattr__(self, name: str) -> Any:
        value = _ABSENT if name in ("own", "name", "resume") else self._member(name, _ABSENT)
        if value is _ABSENT:
            raise AttributeError(name)
        return value

    def sample_latents(self, key: PRNGKeyArray, n: int, **keywords: Any) -> Float[Array, "n d"]:
        """Draw n latents from the prior, (n, latent_dim) float32."""
        shape = (n, self.latent_dim)
        z = self._call("sample_latents", shape, key, n, **keywords)
        if z.shape != shape:
            raise self._wrong("sample_latents", z, shape, "n rows of length latent_dim")
        return z

    def features(self, z: Float[Array, "n d"], layer: str, **keywords: Any) -> Array:
        """Run up to a layer: (n, h, w, c) or (n, dim) float32."""
        layer = self.layers[layer_index(self.layers, layer)]
        n = z.shape[0]
        h = self._call("features", (n, "..."), z, layer, **keywords)
        if h.ndim < 2 or h.shape[0] != n or not h.size:
            raise self._wrong(
                "features", h, (n, "..."), f"one row for each latent, at layer {layer!r}"
            )
        return h

    def images(self, z: Float[Array, "n d"], **keywords: Any) -> Float[Array, "n s s c"]:
        """Generate: (n, size, size, channels) float32."""
        return self._check_images(
            "images", z.shape[0], self._call("images", self._image(z.shape[0]), z, **keywords)
        )

    def _resume(
        self, h: Float[Array, "n ..."], layer: str, **keywords: Any
    ) -> Float[Array, "n s s c"]:
        """Run the rest of the network from the activation of a layer."""
        layer = self.layers[layer_index(self.layers, layer)]
        n = h.shape[0]
        try:
            x = self._run("resume", h, layer, **keywords)
        except UserError as error:
            raise CannotResume(str(error)) from error
        except ForeignError as error:
            if isinstance(error.__cause__, NotImplementedError):
                reason = f"{self.name} cannot resume from layer {layer!r}"
                raise CannotResume(reason) from error
            raise
        x = to_array(x, f"{self.name}.resume", self._image(n))
        return self._check_images("resume", n, x)

    def check_keywords(self, keywords: Mapping[str, Any]) -> None:
        """Check that the methods accept the keywords that every call will pass.

        Raises:
            UserError: naming the first keyword that a method does not accept.
        """
        arguments = {"features": (None, ""), "images": (None,)}
        if hasattr(self, "resume"):
            arguments["resume"] = (None, "")
        for method, positional in arguments.items():
            signature = self._signature(method)
            if signature is None:
                continue
            accepts_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
            for keyword in keywords:
                if keyword not in signature.parameters and not accepts_all:
                    raise UserError(
                        f"{self.name}.{method} takes no {keyword}=; leave --config.generator."
                        f"{keyword} unset, or give {method}() that argument"
                    )
            try:
                signature.bind(*positional, **keywords)
            except TypeError as error:
                missing = [
                    p.name
                    for p in signature.parameters.values()
                    if p.name in KEYWORDS and p.name not in keywords and p.default is p.empty
                ]
                if missing:
                    raise UserError(
                        f"{self.name}.{method} needs {missing[0]}=; give --config.generator."
                        f"{missing[0]}=..., or give the argument a default"
                    ) from error
                raise UserError(
                    f"{self.name}.{method} cannot be called as the protocol does ({error}); "
                    "expected sample_latents(key, n), features(z, layer), images(z), resume(h, "
                    "layer)"
                ) from error

    def _signature(self, method: str) -> inspect.Signature | None:
        try:
            return inspect.signature(getattr(self.own, method))
        except (TypeError, ValueError):  # a method written in C has no signature
            return None

    def _member(self, name: str, default: Any = None) -> Any:
        with foreign_code(f"{self.name}.{name}"):
            try:
                return getattr(self.own, name)
            except AttributeError:
                if inspect.getattr_static(self.own, name, None) is not None:
                    raise  # the member exists: it is a property, and its code raised this
                return default

    def _read_layers(self, layers: Any) -> tuple[str, ...]:
        expected = "expected a tuple of distinct names, such as layers = ('early', 'late')"
        if not isinstance(layers, list | tuple):
            raise UserError(f"{self.name}.layers is {describe_kind(layers)}; {expected}")
        if not layers:
            raise UserError(f"{self.name}.layers is empty; {expected}")
        for layer in layers:
            if not isinstance(layer, str) or not layer.strip():
                raise UserError(f"{self.name}.layers holds {layer!r}; {expected}")
            if layers.count(layer) > 1:
                raise UserError(f"{self.name}.layers holds {layer!r} twice; {expected}")
        return tuple(layers)

    def _read_size(self, member: str, value: Any) -> int:
        if is_whole(value):
            return int(value)
        is_plain = isinstance(value, int | float | str | tuple)
        text = shown(value) if is_plain else describe_kind(value)
        raise UserError(f"{self.name}.{member} is {text}; expected a positive int")

    def _call(self, method: str, shape: tuple[Any, ...], *arguments: Any, **keywords: Any) -> Array:
        value = self._run(method, *arguments, **keywords)
        return to_array(value, f"{self.name}.{method}", shape)

    def _run(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        with foreign_code(f"{self.name}.{method}"):
            value = getattr(self.own, method)(*arguments, **keywords)
        if any(map(_is_deleted, jax.tree.leaves((arguments, keywords)))):
            raise UserError(
                f"{self.name}.{method} deleted an array that it was given, as jax.jit with "
                "donate_argnums does; expected it to be left as it is: donate nothing"
            )
        return value

    def _image(self, n: int) -> tuple[Any, ...]:
        return (n, self.image_size, self.image_size, "channels")

    def _check_images(self, method: str, n: int, x: Array) -> Float[Array, "n s s c"]:
        expected, size = self._image(n), self.image_size
        if x.shape in [(n, size, size, c) for c in CHANNELS]:
            return x
        if x.shape == (n, size, size):
            change = "add a channel axis: x[..., None]"
        elif x.shape in [(n, c, size, size) for c in CHANNELS]:
            change = "channels come last: x.transpose(0, 2, 3, 1), or x.permute in torch"
        elif x.shape[:3] == (n, size, size):
            change = "images have 1 to 4 channels; return only the colours: x[..., :3]"
        elif x.ndim == 4 and x.shape[0] == n and x.shape[1] == x.shape[2]:
            change = f"set image_size = {x.shape[1]} if that is the size of its images"
        else:
            change = "one square image for each row, channels last, 1 to 4 of them"
        raise self._wrong(method, x, expected, change)

    def _wrong(self, method: str, x: Array, expected: tuple[Any, ...], change: str) -> UserError:
        return UserError(
            f"{self.name}.{method} returned an array {describe_shape(x.shape)}; expected "
            f"{describe_shape(expected)}: {change}"
        )


def _is_deleted(x: Any) -> bool:
    return isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) and x.is_deleted()


def checked(gen: Any, name: str | None = None) -> Any:
    """Wrap a generator in checks; built-in and already checked ones are returned as they are."""
    if isinstance(gen, PretrainedGenerator | CheckedGenerator):
        return gen
    return CheckedGenerator(gen, name)
