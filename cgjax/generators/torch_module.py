"""A generator out of any PyTorch module: `from_torch`. The only module of the package with torch.

Layers are submodules of the user's module, read by hooks. A pass for features ends in the hook of
the layer that was asked for, so later submodules do not run.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from cgjax.errors import ForeignError, UserError, foreign_code
from cgjax.generators.arrays import describe_kind, describe_shape, to_array
from cgjax.generators.base import layer_index
from cgjax.numerics.given import as_float32, as_real, check_whole, shown
from cgjax.runtime.keys import check_key

# torch.nn.Module and torch.Tensor: torch is imported when it is needed, which annotations are not.
Module = Any
Tensor = Any
Call = Callable[[Module, Tensor], Any]
# Latents on which it is tried whether the rest of the network can be run from a layer, and the
# difference that rounding explains: the same submodules run on the same numbers, in the same batch.
TRIED, ROUNDING = 2, 1e-4


class _Reached(BaseException):
    """Ends a forward pass at a layer; no handler of the module's own for Exception catches it."""


class TorchGenerator:
    """A PyTorch module behind the generator's protocol; made by `from_torch`.

    Attributes:
        layers: names of the layers, in the order given.
        latent_dim: length of a latent.
        image_size: height and width of an image.
        image_range: (-1, 1), where the range of the module's images was given; else not there.
        name: what messages call it.
        resumable: the layers from which the rest of the network can be run without the latent.
    """

    image_range: tuple[float, float]

    def __init__(
        self,
        module: Module,
        layers: Mapping[str, tuple[str, int]],
        latent_dim: int,
        call: Call,
        image_range: tuple[float, float],
        sample_latents: Callable[[PRNGKeyArray, int], Any] | None,
    ):
        """Bind; `from_torch` finds out the rest."""
        self.layers = tuple(layers)
        self.latent_dim = latent_dim
        self.image_size = 0
        self.resumable: tuple[str, ...] = ()
        self.name = f"{type(module).__module__}:{type(module).__qualname__}"
        self._module, self._call = module, call
        self._paths, self._range, self._sample = dict(layers), image_range, sample_latents

    def sample_latents(self, key: PRNGKeyArray, n: int) -> Any:
        """Draw n latents, (n, latent_dim): unit normal, or by the function that was given."""
        check_key(key)
        shape = (check_whole("n", n, least=0), self.latent_dim)
        if self._sample is None:
            return jax.random.normal(key, shape, jax.numpy.float32)
        whose = f"{self.name}: its sample_latents"
        with foreign_code(whose):
            drawn = self._sample(key, n)
        z = to_array(drawn, whose, shape)
        if z.shape != shape:
            raise UserError(
                f"{whose} returned an array {describe_shape(z.shape)}; expected "
                f"{describe_shape(shape)}: as many rows as asked for, latent_dim"
            )
        return z

    def features(self, z: Any, layer: str) -> Float[np.ndarray, "n ..."]:
        """Run the module up to the end of a layer's submodule, and no further.

        Args:
            z: (n, latent_dim) float, an array of JAX, NumPy or PyTorch.
            layer: one of `layers`.

        Returns:
            (n, h, w, c) float32 where the submodule returns (n, c, h, w); else as it returns it.

        Raises:
            UserError: an unknown layer, latents that do not fit, the layer's submodule does not
                run, or returns no tensor of real numbers.
        """
        path, element = self._paths[self._name_of(layer)]
        reached: list[Tensor] = []

        def stop(_module: Any, _inputs: Any, output: Any) -> None:
            reached.append(_tensor_of(output, element, f"{self.name}: submodule {path!r}"))
            raise _Reached

        with self._pass(), self._hook(path, stop), contextlib.suppress(_Reached):
            self._call(self._module, self._latents(z))
        if not reached:
            raise UserError(
                f"{self.name}: its forward pass never runs the submodule {path!r}; name one that "
                "it does run (a scripted or compiled module runs no hooks: give the plain one)"
            )
        return _to_numpy(reached[0], f"{self.name}: submodule {path!r}")

    def images(self, z: Any) -> Float[np.ndarray, "n s s c"]:
        """Run the whole module: (n, size, size, channels) float32, in [-1, 1]."""
        with self._pass():
            return self._to_images(self._call(self._module, self._latents(z)))

    def pull_back(
        self, z: Any
    ) -> tuple[Float[np.ndarray, "n s s c"], Callable[[Any], Float[np.ndarray, "n d"]]]:
        """Run the whole module so that the gradient of its images can be had.

        Args:
            z: as for `features`.

        Returns:
            The images, and a function, to be called once: the gradient of a number with respect to
            these images -> that with respect to the latents.

        Raises:
            ForeignError: the module raised an exception, also where its images do not depend on the
                latents in a way that PyTorch can differentiate.
        """
        self._module.eval()
        low, high = self._range
        whose = f"{self.name}.forward"
        with foreign_code(whose), _torch().enable_grad():
            rows = self._latents(z).detach().requires_grad_()
            output = _tensor_of(self._call(self._module, rows), 0, whose)

        def back(gradient: Any) -> Float[np.ndarray, "n d"]:
            slope = np.array(gradient, np.float32) * np.float32(2 / (high - low))
            given = _channels_first(_torch().from_numpy(slope)).to(output.device, output.dtype)
            with foreign_code(whose, "when it was differentiated"):
                (found,) = _torch().autograd.grad(output, rows, given)
            return _to_numpy(found, whose)

        return self._to_images(output), back

    def _resume(self, h: Any, layer: str) -> Float[np.ndarray, "n s s c"]:
        """Run the module on any latents, with a layer's output replaced; see `from_torch`."""
        layer = self._name_of(layer)
        if layer not in self.resumable:
            raise NotImplementedError(
                f"what follows {layer!r} reads the latent, or submodules before it"
            )
        rows = np.asarray(as_float32("activations", h, f"what features(z, {layer!r}) returns"))
        # What comes before the layer must run, whatever it gives.
        return self._rerun(rows, layer, self.sample_latents(jax.random.key(0), len(rows)))

    def _rerun(self, h: np.ndarray, layer: str, z: Any) -> Float[np.ndarray, "n s s c"]:
        path, element = self._paths[layer]
        is_first = True

        def replace(_module: Any, _inputs: Any, output: Any) -> Any:
            nonlocal is_first
            if not is_first:  # a pass reads the first of several calls
                return output
            is_first = False
            own = _tensor_of(output, element, path)
            new = _torch().from_numpy(np.array(h, np.float32)).to(own.device, own.dtype)
            return _replace(output, element, _channels_first(new))

        with self._pass(), self._hook(path, replace):
            return self._to_images(self._call(self._module, self._latents(z)))

    @functools.cached_property
    def manifest(self) -> dict[str, str]:
        """`weights_sha256`: a hash of the module's parameters and buffers, and of its layers.

        A run refuses to go on with another one.
        """
        digest = hashlib.sha256(repr(sorted(self._paths.items())).encode())
        for name, tensor in self._module.state_dict().items():
            digest.update(name.encode())
            if isinstance(tensor, _torch().Tensor):
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(_torch().uint8).numpy().data)
        return {"weights_sha256": digest.hexdigest()}

    def measure(self, image_size: int | None) -> None:
        """Find the image's size, and the layers from which the network can be resumed.

        Raises:
            UserError: images of another kind or size, a layer that never runs.
        """
        z, other = (self.sample_latents(jax.random.key(seed), TRIED) for seed in (0, 1))
        images = self.images(z)
        if images.ndim != 4 or images.shape[1] != images.shape[2]:
            raise UserError(
                f"{self.name} returned images of shape {images.shape} (channels last); expected "
                "(n, size, size, channels); give a call= that returns (n, channels, size, size)"
            )
        if image_size not in (None, images.shape[1]):
            raise UserError(
                f"image_size={image_size}, but {self.name} returned images of {images.shape[1]} "
                "pixels; leave image_size out"
            )
        self.image_size = images.shape[1]
        self.resumable = tuple(
            layer for layer in self.layers if self._is_resumed(layer, z, other, images)
        )
        if self.resumable:
            self.resume = self._resume

    def _is_resumed(self, layer: str, z: Any, other: Any, images: np.ndarray) -> bool:
        h = self.features(z, layer)
        if h.ndim < 2 or not len(images) == len(h) == TRIED:
            return False  # `contract` names this
        try:
            resumed = self._rerun(h, layer, other)
        except (UserError, ForeignError):
            return False
        return bool(np.abs(resumed - images).max() <= ROUNDING * np.abs(images).max())

    def _name_of(self, layer: Any) -> str:
        return self.layers[layer_index(self.layers, layer)]

    @contextlib.contextmanager
    def _pass(self) -> Iterator[None]:
        """Run in evaluation mode, without gradients, under the module's name."""
        self._module.eval()
        with foreign_code(f"{self.name}.forward"), _torch().no_grad():
            yield

    @contextlib.contextmanager
    def _hook(self, path: str, hook: Callable[..., Any]) -> Iterator[None]:
        handle = self._module.get_submodule(path).register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def _latents(self, z: Any) -> Tensor:
        expected = f"(n, {self.latent_dim})"
        if not isinstance(z, _torch().Tensor):
            z = _torch().from_numpy(np.array(as_float32("latents", z, expected)))
        if z.ndim != 2 or z.shape[1] != self.latent_dim or z.is_complex():
            raise UserError(
                f"latents have shape {tuple(z.shape)} ({z.dtype}); {self.name} expects {expected} "
                "real numbers"
            )
        device, dtype = _place(self._module)
        return z.to(device, dtype)

    def _to_images(self, output: Any) -> np.ndarray:
        whose = f"{self.name}.forward"
        x = _to_numpy(_tensor_of(output, 0, whose), whose)
        low, high = self._range
        return x if (low, high) == (-1, 1) else (x - low) * np.float32(2 / (high - low)) - 1


def from_torch(
    module: Module,
    *,
    latent_dim: int,
    layers: Mapping[str, str | tuple[str, int]] | Sequence[str],
    call: Call = lambda module, z: module(z),
    image_size: int | None = None,
    image_range: tuple[float, float] | None = None,
    sample_latents: Callable[[PRNGKeyArray, int], Any] | None = None,
) -> TorchGenerator:
    """Make a generator of a PyTorch module.

    The module is put into evaluation mode before every pass, and stays in it. Passes run without
    gradients, on the device and in the floating type of the module's parameters, all rows given at
    once. Of a submodule that runs several times in a pass, the first output counts.

    `resume(h, layer)` reruns the module with the submodule's output replaced. It exists where that
    gives the image: where no later submodule reads the latent or what comes before the layer. This
    is tried on a few latents; where there is no such layer the generator has no `resume`, and a
    run's figures leave out the images of mean features.

    Args:
        module: the network, on its device.
        latent_dim: length of a latent.
        layers: name -> path of a submodule as in `module.named_modules()`, or a list of paths. Of a
            submodule that returns a tuple or list the first tensor is taken; (path, i) takes its
            i-th element.
        call: (module, z) -> images (n, channels, size, size), or a tuple whose first tensor they
            are; z is (n, latent_dim).
        image_size: height and width of an image; default: measured.
        image_range: the values of black and white in the module's images, such as (0, 1) or
            (0, 255); default: (-1, 1).
        sample_latents: (key, n) -> (n, latent_dim), with a key of JAX; default: unit normal.

    Returns:
        An object with the members of `cgjax.generators.base.Generator`.

    Raises:
        UserError: no such submodule, one that never runs, images of another kind, latents of
            another shape, an argument that is not as said above.
        ForeignError: the module raised an exception.

    Example:
        def make():  # in mine.py; then --config.generator.name=mine:make --config.layer=early
            module = load_my_stylegan("ffhq.pt").cuda()
            return cgjax.from_torch(
                module,
                latent_dim=512,
                layers={"early": "synthesis.b16", "late": "synthesis.b64"},
                call=lambda m, z: m(z, None),
            )
    """
    if not isinstance(module, _torch().nn.Module):
        raise UserError(
            f"from_torch was given {describe_kind(module)}; expected a torch.nn.Module (a file of "
            "weights holds no code: build the module, then module.load_state_dict(...))"
        )
    latent_dim = check_whole("latent_dim", latent_dim)
    for name, function in (("call", call), ("sample_latents", sample_latents)):
        if not (callable(function) or function is None):
            raise UserError(f"{name}={shown(function)}; expected a function")
    pixels = _read_range((-1, 1) if image_range is None else image_range)
    paths = _read_layers(module, layers)
    gen = TorchGenerator(module, paths, latent_dim, call, pixels, sample_latents)
    gen.measure(image_size)
    if image_range is not None:
        gen.image_range = (-1, 1)  # said on purpose: no guess from the images' values
    return gen


def _torch() -> Any:
    """Import PyTorch, when it is needed."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"from_torch needs PyTorch, which cannot be imported ({error}); type: pip install "
            "'cgjax[torch]'"
        ) from error
    return torch


def _read_layers(
    module: Module, layers: Mapping[str, str | tuple[str, int]] | Sequence[str]
) -> dict[str, tuple[str, int]]:
    known = [path for path, _ in module.named_modules() if path]
    expected = f"expected paths of submodules, such as layers={{'early': {[*known, 'block'][0]!r}}}"
    if not isinstance(layers, Mapping | list | tuple):
        raise UserError(f"layers={shown(layers)}; {expected}")
    paths = {}
    for name, value in layers.items() if isinstance(layers, Mapping) else [(x, x) for x in layers]:
        path, element = _path_and_element(value)
        if not isinstance(path, str) or not isinstance(name, str):
            places = [place for place, child in module.named_modules() if child is path]
            hint = f"; give the path {places[0]!r} instead of the module" if places else ""
            raise UserError(f"layers holds {shown(name)}: {shown(value)}; {expected}{hint}")
        if path not in known:
            near = difflib.get_close_matches(path, known, n=3, cutoff=0.4) or known[:5]
            raise UserError(
                f"layers: {type(module).__name__} has no submodule {path!r}; the nearest: "
                f"{', '.join(near)} (module.named_modules() lists all {len(known)})"
            )
        paths[name] = (path, element)
    if not paths:
        raise UserError(f"layers is empty; {expected}")
    return paths


def _path_and_element(value: Any) -> tuple[Any, int]:
    """Return what stands for the path, and the element: 0 where (path, i) is not given."""
    is_pair = isinstance(value, tuple) and len(value) == 2
    if is_pair and isinstance(value[1], int) and not isinstance(value[1], bool):
        return value
    return value, 0


def _read_range(given: Any) -> tuple[float, float]:
    expected = "(black, white), such as (0, 1)"
    values = np.asarray(as_real("the numbers of image_range", given, expected), np.float64)
    if values.shape != (2,) or not np.isfinite(values).all() or not values[0] < values[1]:
        raise UserError(f"image_range={shown(given)}; expected {expected}")
    return float(values[0]), float(values[1])


def _place(module: Module) -> tuple[Any, Any]:
    """Return the device and the floating type of a module's first tensor of floats."""
    for tensors in (module.parameters(), module.buffers()):
        for tensor in tensors:
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
    return _torch().device("cpu"), _torch().float32


def _position(output: Any, element: int) -> int | None:
    """Return where in a tuple or list the tensor stands: the first if `element` is 0."""
    is_tensor = [isinstance(entry, _torch().Tensor) for entry in output]
    if element == 0 and any(is_tensor):
        return is_tensor.index(True)
    return element if -len(output) <= element < len(output) and is_tensor[element] else None


def _tensor_of(output: Any, element: int, whose: str) -> Tensor:
    if isinstance(output, _torch().Tensor):
        return output
    if isinstance(output, tuple | list) and (i := _position(output, element)) is not None:
        return output[i]
    raise UserError(
        f"{whose} returned a {type(output).__name__} without a tensor at {element}; expected a "
        "tensor, or a tuple or list with one"
    )


def _replace(output: Any, element: int, tensor: Tensor) -> Any:
    if isinstance(output, _torch().Tensor):
        return tensor
    entries = list(output)
    position = _position(output, element)
    assert position is not None
    entries[position] = tensor
    if isinstance(output, list):
        return entries
    return type(output)(*entries) if hasattr(output, "_fields") else tuple(entries)


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, -1, *range(1, x.ndim - 1)) if x.ndim >= 4 else x


def _to_numpy(x: Tensor, whose: str) -> np.ndarray:
    """Return float32 with channels last; a sequence (n, tokens, dim) stays as it is."""
    if x.is_complex():
        raise UserError(f"{whose} returned complex numbers; expected real ones, such as their abs")
    if x.ndim >= 4:
        x = x.permute(0, *range(2, x.ndim), 1)
    return x.detach().float().contiguous().cpu().numpy()
