"""`from_torch`: make a generator from any PyTorch module.

Layers are submodules of the user's module, read by forward hooks. A pass for features ends in the
hook of the requested layer, so later submodules do not run.
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
from cgjax.generators.torch_tensors import (
    Module,
    Tensor,
    channels_first,
    device_and_dtype,
    import_torch,
    replace_tensor,
    select_tensor,
    to_numpy,
)
from cgjax.numerics.arguments import as_float32, as_real, check_whole, shown
from cgjax.runtime.keys import check_key

Call = Callable[[Module, Tensor], Any]
# Number of latents with which resuming from a layer is tried, and the relative difference that
# rounding can cause, in units of the module's precision too: the same submodules run on the same
# numbers in the same batch, but these may lie in another order in memory.
TRIED, ROUNDING, UNITS = 2, 1e-4, 4


class _Reached(BaseException):
    """Ends a forward pass at a layer; the module's own `except Exception` does not catch it."""


class TorchGenerator:
    """A PyTorch module behind the generator protocol; made by `from_torch`.

    Attributes:
        layers: names of the layers, in the order given.
        latent_dim: length of a latent.
        image_size: height and width of an image.
        image_range: (-1, 1) if the user stated the range of the module's images; otherwise unset.
        name: the generator's name in messages.
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
        """Store the arguments; `from_torch` then calls `measure`."""
        self.layers = tuple(layers)
        self.latent_dim = latent_dim
        self.image_size = 0
        self.resumable: tuple[str, ...] = ()
        self.name = f"{type(module).__module__}:{type(module).__qualname__}"
        self._module, self._call = module, call
        self._paths, self._range, self._sample = dict(layers), image_range, sample_latents

    def sample_latents(self, key: PRNGKeyArray, n: int) -> Any:
        """Draw n latents, (n, latent_dim): unit normal, or with the user's function."""
        check_key(key)
        shape = (check_whole("n", n, least=0), self.latent_dim)
        if self._sample is None:
            return jax.random.normal(key, shape, jax.numpy.float32)
        whose = f"{self.name}: its sample_latents"
        with foreign_code(whose):
            latents = self._sample(key, n)
        z = to_array(latents, whose, shape)
        if z.shape != shape:
            raise UserError(
                f"{whose} returned an array {describe_shape(z.shape)}; expected "
                f"{describe_shape(shape)}: n rows of length latent_dim"
            )
        return z

    def features(self, z: Any, layer: str) -> Float[np.ndarray, "n ..."]:
        """Run the module up to the end of a layer's submodule, and no further.

        Args:
            z: (n, latent_dim) float, a JAX, NumPy or PyTorch array.
            layer: one of `layers`.

        Returns:
            (n, h, w, c) float32 where the submodule returns (n, c, h, w); otherwise in the shape
            that it returns.

        Raises:
            UserError: an unknown layer, latents that do not fit, or a submodule that does not run
                or does not return a tensor of real numbers.
        """
        path, element = self._paths[self._name_of(layer)]
        reached: list[Tensor] = []

        def stop(_module: Any, _inputs: Any, output: Any) -> None:
            reached.append(select_tensor(output, element, f"{self.name}: submodule {path!r}"))
            raise _Reached

        with self._pass(), self._hook(path, stop), contextlib.suppress(_Reached):
            self._call(self._module, self._latents(z))
        if not reached:
            raise UserError(
                f"{self.name}: its forward pass never runs the submodule {path!r}; name one that "
                "it does run (a scripted or compiled module runs no hooks: give the plain one)"
            )
        return to_numpy(reached[0], f"{self.name}: submodule {path!r}")

    def images(self, z: Any) -> Float[np.ndarray, "n s s c"]:
        """Run the whole module: (n, size, size, channels) float32, in [-1, 1]."""
        with self._pass():
            return self._to_images(self._call(self._module, self._latents(z)))

    def pull_back(
        self, z: Any
    ) -> tuple[Float[np.ndarray, "n s s c"], Callable[[Any], Float[np.ndarray, "n d"]]]:
        """Run the whole module and return its images with a vector-Jacobian product.

        Args:
            z: as for `features`.

        Returns:
            The images, and a function to be called at most once: gradient of a scalar with respect
            to these images -> its gradient with respect to the latents.

        Raises:
            ForeignError: the module raised an exception, or PyTorch cannot differentiate its images
                with respect to the latents.
        """
        self._module.eval()
        low, high = self._range
        whose = f"{self.name}.forward"
        with foreign_code(whose), import_torch().enable_grad():
            rows = self._latents(z).detach().requires_grad_()
            output = select_tensor(self._call(self._module, rows), 0, whose)

        def back(gradient: Any) -> Float[np.ndarray, "n d"]:
            torch = import_torch()
            # With respect to the module's own output, whose range is (low, high).
            scaled = torch.from_numpy(np.array(gradient, np.float32) * np.float32(2 / (high - low)))
            cotangent = channels_first(scaled).to(output.device, output.dtype)
            with foreign_code(whose, "when it was differentiated"):
                (gradient_z,) = torch.autograd.grad(output, rows, cotangent)
            return to_numpy(gradient_z, whose)

        return self._to_images(output), back

    def _resume(self, h: Any, layer: str) -> Float[np.ndarray, "n s s c"]:
        """Run the module on arbitrary latents, with a layer's output replaced; see `from_torch`."""
        layer = self._name_of(layer)
        if layer not in self.resumable:
            raise NotImplementedError(
                f"the network after {layer!r} reads the latent, or submodules before it"
            )
        rows = np.asarray(as_float32("activations", h, f"what features(z, {layer!r}) returns"))
        # The submodules before the layer have to run, but their values do not matter.
        return self._rerun(rows, layer, self.sample_latents(jax.random.key(0), len(rows)))

    def _rerun(self, h: np.ndarray, layer: str, z: Any) -> Float[np.ndarray, "n s s c"]:
        path, element = self._paths[layer]
        is_first = True

        def replace(_module: Any, _inputs: Any, output: Any) -> Any:
            nonlocal is_first
            if not is_first:  # if the submodule runs several times, its first output is the layer
                return output
            is_first = False
            old = select_tensor(output, element, path)
            new = import_torch().from_numpy(np.array(h, np.float32)).to(old.device, old.dtype)
            return replace_tensor(output, element, channels_first(new))

        with self._pass(), self._hook(path, replace):
            return self._to_images(self._call(self._module, self._latents(z)))

    @functools.cached_property
    def manifest(self) -> dict[str, str]:
        """`weights_sha256`: a hash of the module's parameters and buffers, and of its layers.

        A run refuses to resume with a different hash.
        """
        digest = hashlib.sha256(repr(sorted(self._paths.items())).encode())
        for name, tensor in self._module.state_dict().items():
            digest.update(name.encode())
            if isinstance(tensor, import_torch().Tensor):
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(import_torch().uint8).numpy().data)
        return {"weights_sha256": digest.hexdigest()}

    def measure(self, image_size: int | None) -> None:
        """Determine the image size, and the layers from which the network can be resumed.

        Raises:
            UserError: images of the wrong shape or another size, a layer that never runs.
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
            return False  # `contract` reports this
        try:
            resumed = self._rerun(h, layer, other)
        except (UserError, ForeignError):
            return False
        _, dtype = device_and_dtype(self._module)
        allowed = max(ROUNDING, UNITS * import_torch().finfo(dtype).eps)
        return bool(np.abs(resumed - images).max() <= allowed * np.abs(images).max())

    def _name_of(self, layer: Any) -> str:
        return self.layers[layer_index(self.layers, layer)]

    @contextlib.contextmanager
    def _pass(self) -> Iterator[None]:
        """Run in evaluation mode, without gradients, under the module's name."""
        self._module.eval()
        with foreign_code(f"{self.name}.forward"), import_torch().no_grad():
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
        if not isinstance(z, import_torch().Tensor):
            z = import_torch().from_numpy(np.array(as_float32("latents", z, expected)))
        if z.ndim != 2 or z.shape[1] != self.latent_dim or z.is_complex():
            raise UserError(
                f"latents have shape {tuple(z.shape)} ({z.dtype}); {self.name} expects {expected} "
                "real numbers"
            )
        device, dtype = device_and_dtype(self._module)
        return z.to(device, dtype)

    def _to_images(self, output: Any) -> np.ndarray:
        whose = f"{self.name}.forward"
        x = to_numpy(select_tensor(output, 0, whose), whose)
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
    """Make a generator from a PyTorch module.

    The module is put into evaluation mode before every pass, and stays in it. Passes run without
    gradients, on the device and in the floating-point type of the module's parameters, with all
    rows in one batch. If a submodule runs several times in a pass, its first output is the layer.

    `resume(h, layer)` reruns the module with the submodule's output replaced. It exists for the
    layers where this reproduces the image: where no later submodule reads the latent or anything
    before the layer, which is tried on a few latents. If there is no such layer, the generator has
    no `resume`, and a run's figures leave out the images of mean features.

    Args:
        module: the network, on its device.
        latent_dim: length of a latent.
        layers: name -> path of a submodule as in `module.named_modules()`, or a list of paths. If a
            submodule returns a tuple or list, its first tensor is taken; (path, i) takes the i-th
            element.
        call: (module, z) -> images (n, channels, size, size), or a tuple whose first tensor is the
            images; z is (n, latent_dim).
        image_size: height and width of an image; default: measured.
        image_range: the values of black and white in the module's images, such as (0, 1) or
            (0, 255); default: (-1, 1).
        sample_latents: (key, n) -> (n, latent_dim), with a JAX key; default: unit normal.

    Returns:
        An object with the members of `cgjax.generators.base.Generator`.

    Raises:
        UserError: a submodule that does not exist or never runs, images or latents of the wrong
            shape, an invalid argument.
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
    if not isinstance(module, import_torch().nn.Module):
        raise UserError(
            f"from_torch was given {describe_kind(module)}; expected a torch.nn.Module (a weights "
            "file contains no code: build the module, then module.load_state_dict(...))"
        )
    if isinstance(module, import_torch().jit.ScriptModule):
        raise UserError(
            "from_torch was given a scripted module, whose submodules cannot be watched; give the "
            "plain module that it was made from"
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
        gen.image_range = (-1, 1)  # stated by the user, so `contract` does not guess from values
    return gen


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
            matches = [name for name, child in module.named_modules() if child is path]
            hint = f"; give the path {matches[0]!r} instead of the module" if matches else ""
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
    """Return the path and the element of a layer: (value, 0) unless the value is (path, i)."""
    is_pair = isinstance(value, tuple) and len(value) == 2
    if is_pair and isinstance(value[1], int) and not isinstance(value[1], bool):
        return value
    return value, 0


def _read_range(value: Any) -> tuple[float, float]:
    expected = "(black, white), such as (0, 1)"
    values = np.asarray(as_real("the numbers of image_range", value, expected), np.float64)
    if values.shape != (2,) or not np.isfinite(values).all() or not values[0] < values[1]:
        raise UserError(f"image_range={shown(value)}; expected {expected}")
    return float(values[0]), float(values[1])
