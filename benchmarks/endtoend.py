"""Iterations a second of a Self-Conditioned GAN in the plane, beside the same loop in PyTorch.

    python benchmarks/endtoend.py
    python benchmarks/endtoend.py --method=gan --steps=50 --reps=9
    python benchmarks/endtoend.py --trials=10        # ten trials as one program, beside ten in turn
    taskset -c 0 python benchmarks/endtoend.py --cpu_time       # one core, on a busy machine

Both sides have the same networks (400 x 4 and maxout 200 x 3), batch, optimiser and number of
threads, and take turns in one process. PyTorch's loop is written like the published one: the
generator runs once for the discriminator's step and again for its own, and the labels are looked up
in both. Before timing, the first iterations from the same weights, rows and latents must give the
same losses. The floor is every matrix product of an iteration with one pass of the generator, at
the best rate that any library reached at its shape in this run (see timing.py).
"""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
import torch
from torch.nn.functional import softplus

from cgjax.endtoend import trainer as training
from cgjax.endtoend.data import grid
from cgjax.endtoend.methods.base import Gan, Method
from cgjax.endtoend.methods.selfcond import SelfConditioned
from cgjax.endtoend.networks import Planar
from cgjax.endtoend.state import TrainState
from cgjax.endtoend.trainer import Trainer
from cgjax.runtime.keys import named_key

LABELS, ROWS = 50, 100_000


class TorchGenerator(torch.nn.Module):
    """The published generator with the given weights."""

    def __init__(self, params: dict[str, Any]):
        super().__init__()
        table = params["embedding"]["table"] if "embedding" in params else None
        self.table = None if table is None else torch.nn.Parameter(tensor(table))
        rest = params["rest"]
        layers = [params["first"], *ordered(rest["layers"])]
        self.layers = torch.nn.ModuleList(linear(layer) for layer in layers)
        widths = [len(layer["bias"]) for layer in layers]
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm1d(width) for width in widths)
        self.last = linear(rest["last"])

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Generate points."""
        if self.table is not None:
            rows = self.table[y]
            z = torch.cat([z, rows / rows.norm(dim=1, keepdim=True)], 1)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            z = torch.relu(norm(layer(z)))
        return self.last(z)


class TorchDiscriminator(torch.nn.Module):
    """The published discriminator with the given weights."""

    def __init__(self, params: dict[str, Any], pieces: int):
        super().__init__()
        # Here the maximum is taken over neighbouring outputs.
        self.layers = torch.nn.ModuleList(
            linear(neighbours(layer["linear"], pieces)) for layer in ordered(params["layers"])
        )
        self.head, self.pieces = linear(params["head"]), pieces

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return each point's logit of its label."""
        for layer in self.layers:
            x = layer(x).view(len(x), -1, self.pieces).max(2)[0]
        return self.head(x).gather(1, y[:, None])[:, 0]


def tensor(x: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(x))


def ordered(layers: dict[Any, Any]) -> list[Any]:
    return [layers[i] for i in sorted(layers)]


def neighbours(layer: dict[str, Any], pieces: int) -> dict[str, Any]:
    """Reorder a layer's outputs so that the pieces of a maxout unit are neighbours."""
    kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
    order = np.arange(len(bias)).reshape(pieces, -1).T.ravel()
    return {"kernel": kernel[:, order], "bias": bias[order]}


def linear(layer: dict[str, Any]) -> torch.nn.Linear:
    kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
    module = torch.nn.Linear(*kernel.shape)
    with torch.no_grad():
        module.weight.copy_(tensor(kernel.T))
        module.bias.copy_(tensor(bias))
    return module


class TorchLoop:
    """The published loop: a discriminator step, then a generator step, each with its own pass."""

    def __init__(
        self, generator: torch.nn.Module, discriminator: torch.nn.Module, trainer: Trainer
    ):
        nets = self.generator, self.discriminator = generator, discriminator
        betas = trainer.beta1, trainer.beta2
        self.adams = [torch.optim.Adam(n.parameters(), trainer.learning_rate, betas) for n in nets]

    def step(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> tuple[float, float]:
        """Take an iteration; return the generator's and the discriminator's loss."""
        adam_g, adam_d = self.adams
        self.discriminator.requires_grad_(True)
        adam_d.zero_grad()
        with torch.no_grad():
            fake = self.generator(z, y)
        logits, fake_logits = self.discriminator(x, y), self.discriminator(fake, y)
        loss_d = softplus(-logits).mean() + softplus(fake_logits).mean()
        loss_d.backward()
        adam_d.step()
        self.discriminator.requires_grad_(False)
        adam_g.zero_grad()
        loss_g = softplus(-self.discriminator(self.generator(z, y), y)).mean()
        loss_g.backward()
        adam_g.step()
        return loss_g.item(), loss_d.item()


def in_torch(trainer: Trainer, rows: Any) -> torch.Tensor:
    """Return rows as the networks get them; images have channels first."""
    prepared = np.asarray(trainer.prepare(rows))
    return tensor(prepared if prepared.ndim == 2 else prepared.transpose(0, 3, 1, 2).copy())


def planar_loop(state: TrainState, trainer: Trainer) -> TorchLoop:
    networks = trainer.networks
    assert isinstance(networks, Planar)
    generator = TorchGenerator(state.generator.arrays.params)
    params = state.discriminator.arrays.params
    return TorchLoop(generator, TorchDiscriminator(params, networks.pieces), trainer)


def check(
    trainer: Trainer,
    state: TrainState,
    points: Any,
    key: Any,
    num: int,
    theirs: TorchLoop,
    rtol: float = 1e-4,
) -> None:
    """Check that the first losses equal those of PyTorch's loop with the same rows and latents."""
    total = len(points.rows)
    rows = training.batches(named_key(key, "rows"), jnp.int32(0), total, trainer.batch, num)
    want = []
    for i in range(num):
        key_code = jax.random.split(jax.random.fold_in(key, i))[1]
        z = jax.random.normal(key_code, (trainer.batch, trainer.networks.latent_dim), jnp.float32)
        y = tensor(state.partition.labels[rows[i]]).long()
        want.append(theirs.step(in_torch(trainer, points.rows[rows[i]]), y, tensor(z)))
    _, losses = trainer.run(stacked([state]), stacked([points]), key[None], 0, num)
    got = np.stack([losses.generator[0], losses.discriminator[0]], axis=1)
    np.testing.assert_allclose(got, want, rtol=rtol)


def iteration_products(state: TrainState, batch: int) -> Counter[timing.Shape]:
    """Return the products of an iteration: both steps see one batch of generated points."""
    params = state.generator.arrays.params
    rest = params["rest"]
    generator = [params["first"], *ordered(rest["layers"]), rest["last"]]
    params = state.discriminator.arrays.params
    critic = [*(layer["linear"] for layer in ordered(params["layers"])), params["head"]]
    products: Counter[timing.Shape] = Counter()

    def add(layers: list[Any], rows: int, *, learns: bool, inputs_from: int) -> None:
        for i, layer in enumerate(layers):
            inputs, outputs = layer["kernel"].shape
            products[rows, inputs, outputs] += 1
            products[inputs, rows, outputs] += learns
            products[rows, outputs, inputs] += i >= inputs_from

    add(critic, 2 * batch, learns=True, inputs_from=1)
    add(critic, batch, learns=False, inputs_from=0)
    add(generator, batch, learns=True, inputs_from=1)
    return +products


def stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def make(method: str, trials: int) -> tuple[Trainer, list[TrainState], list[Any]]:
    table: dict[str, Method] = {"gan": Gan(), "scgan": SelfConditioned(LABELS, num_init=1)}
    trainer, mixture = Trainer(table[method], Planar()), grid()
    points = [mixture.draw(jax.random.key(i), ROWS) for i in range(trials)]
    states = [trainer.init(jax.random.key(100 + i), p) for i, p in enumerate(points)]
    return trainer, states, points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--method", choices=("scgan", "gan"), default="scgan")
    parser.add_argument("--steps", type=int, default=50, help="iterations of a call")
    parser.add_argument("--reps", type=int, default=7)
    parser.add_argument(
        "--cpu_time", action="store_true", help="time the process's CPU seconds, on one core"
    )
    parser.add_argument(
        "--trials", type=int, default=1, help="more than one: as one program and in turn"
    )
    args = parser.parse_args()
    torch.set_num_threads(timing.THREADS)
    torch.manual_seed(0)
    trainer, states, points = make(args.method, args.trials)
    keys = jax.random.split(jax.random.key(7), args.trials)
    check(trainer, states[0], points[0], keys[0], 5, planar_loop(states[0], trainer))
    runs = {"ours": (stacked(states), stacked(points), keys)}
    if args.trials > 1:
        runs = {"together": runs["ours"]}
        for i in range(args.trials):
            trial = stacked(states[i : i + 1]), stacked(points[i : i + 1]), keys[i : i + 1]
            runs[f"alone {i}"] = trial
    latest = {name: state for name, (state, _, _) in runs.items()}

    def run(names: list[str]) -> None:
        for name in names:
            _, data, key = runs[name]
            latest[name], losses = trainer.run(latest[name], data, key, 0, args.steps)
            jax.block_until_ready((latest[name], losses))

    if args.trials > 1:
        alone = [name for name in runs if name != "together"]
        calls = {"together": lambda: run(["together"]), "in turn": lambda: run(alone)}
        seconds = timing.medians(calls, args.reps)
        ratio = seconds["in turn"] / seconds["together"]
        rates = {name: args.steps * args.trials / s for name, s in seconds.items()}
        text = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
        print(f"{args.method}, {args.trials} trials: iterations a second {text}; {ratio:.2f}x")
        return
    theirs = planar_loop(states[0], trainer)
    rows = np.random.default_rng(0).integers(0, ROWS, (args.steps, trainer.batch))
    x, labels = tensor(points[0].rows), tensor(states[0].partition.labels).long()

    def torch_loop() -> None:
        for chosen in rows:
            z = torch.randn(trainer.batch, trainer.networks.latent_dim)
            theirs.step(x[chosen], labels[chosen], z)

    calls = {"ours": functools.partial(run, ["ours"]), "torch": torch_loop}
    medians = timing.cpu_medians if args.cpu_time else timing.medians
    milliseconds = {name: 1e3 * s / args.steps for name, s in medians(calls, args.reps).items()}
    print(timing.processor())
    products = iteration_products(states[0], trainer.batch)
    floor = 1e3 * timing.floor(products, timing.product_rates(products, args.reps))
    what = "CPU-milliseconds" if args.cpu_time else "milliseconds"
    print(
        f"{args.method}, {timing.THREADS} threads, medians of {args.reps}: {what} an iteration, "
        f"ours {milliseconds['ours']:.1f}, torch {milliseconds['torch']:.1f}; "
        f"{milliseconds['torch'] / milliseconds['ours']:.2f}x; floor {floor:.1f}, "
        f"{floor / milliseconds['ours']:.0%} of ours"
    )


if __name__ == "__main__":
    main()
