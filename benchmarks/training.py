"""Milliseconds of an epoch of the learned samplers, beside the PyTorch loops of a user.

    python benchmarks/training.py [--reps=5]
    python benchmarks/training.py --gpu       # PyTorch on the same GPU, TF32 allowed to both

IMLE: two clusters of 5,000 latents, a pool of 9,984, batch 128, exact match, Adam re-created; in
512-d at width 512, and as in configs/dcgan_pose.py (100-d, width 128). The peers are PyTorch with
FAISS for the match, as installed and told its processor, and PyTorch with torch.cdist. Flow: an
epoch of 20,000 latents at batch 512. The floor is every matrix product of the work at the best rate
that any library reached at its shape in this run (see timing.py); on a GPU, at the better rate of
PyTorch's and our largest product. Before timing, one epoch from the same weights and random numbers
must give the same losses. On a GPU there is no FAISS, and the published training (400 epochs of the
first case) is timed as a whole.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
import torch

from cgjax.samplers import flow
from cgjax.samplers.base import Members
from cgjax.samplers.flow import Flow
from cgjax.samplers.imle import Imle
from cgjax.samplers.velocity import TIME_FREQUENCIES

MEMBERS = 5_000
Match = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Products = Counter[timing.Shape]


def synchronize() -> None:
    """Wait until PyTorch's work on the GPU is done, if it uses one."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


def members(num: int, dim: int) -> Members:
    """Return two equal clusters of unit-normal latents."""
    z = jax.random.normal(jax.random.key(0), (2, num, dim), jnp.float32)
    return Members(z, jnp.full(2, num, jnp.int32), is_ordered=True)


def faiss_match(z: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    import faiss

    faiss.omp_set_num_threads(timing.THREADS)
    index = faiss.IndexFlatL2(z.shape[1])
    index.add(generated.numpy())
    return torch.from_numpy(index.search(z.numpy(), 1)[1][:, 0])


def cdist_match(z: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    return torch.cdist(z, generated).argmin(1)


def mapping(sampler: Imle, params: Any, cluster: int) -> torch.nn.Sequential:
    """Build T_c in PyTorch with the given weights."""
    e_dim, hidden, d = sampler.mapping
    layers: list[torch.nn.Module] = []
    for i, (inputs, outputs) in enumerate(((e_dim, hidden), (hidden, hidden), (hidden, d))):
        layer = torch.nn.Linear(inputs, outputs, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(np.array(params["kernels"][i][cluster].T)))
        layers += [layer] if i == 2 else [layer, torch.nn.BatchNorm1d(hidden), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers)


def imle_epoch(
    sampler: Imle,
    net: torch.nn.Sequential,
    z: torch.Tensor,
    match: Match,
    codes: torch.Tensor | None = None,
    order: torch.Tensor | None = None,
) -> float:
    """Run the published epoch of one cluster; draws the codes and the order if not given."""
    b, steps = sampler.batch, len(z) // sampler.batch
    if codes is None:
        codes = torch.randn(sampler.pool_factor * steps, b, sampler.mapping.code_dim)
    if order is None:
        order = torch.randperm(len(z))
    net.train()
    with torch.no_grad():
        index = match(z, torch.cat([net(batch) for batch in codes]))
    matched = codes.reshape(-1, codes.shape[2])[index]
    adam = torch.optim.Adam(
        net.parameters(),
        lr=sampler.learning_rate,
        betas=(sampler.beta1, sampler.beta2),
        weight_decay=sampler.weight_decay,
    )
    total = torch.zeros(())
    for s in range(steps):
        rows = order[s * b : (s + 1) * b]
        loss = torch.nn.functional.mse_loss(net(matched[rows]), z[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
        total += loss.detach()
    return total.item() / steps


def backward(products: Products) -> Products:
    """Return the products that the gradients of both operands take."""
    gradients: Products = Counter()
    for (rows, inner, columns), count in products.items():
        gradients[inner, rows, columns] += count
        gradients[rows, columns, inner] += count
    return gradients


def imle_products(sampler: Imle, m: int) -> tuple[Products, Products]:
    """Return one cluster's matrix products in an epoch: of the match, and of everything else."""
    (e_dim, w, d), b = sampler.mapping, sampler.batch
    steps = m // b
    pool = sampler.pool_factor * steps
    first, rest = Counter({(b, e_dim, w): steps}), Counter({(b, w, w): steps})
    rest[b, w, d] += steps
    drawn = Counter({shape: count * pool // steps for shape, count in (first + rest).items()})
    # The gradient of the codes is not needed.
    codes = Counter({(e_dim, b, w): steps})
    return Counter({(m, d, pool * b): 1}), drawn + first + rest + codes + backward(rest)


def imle_floor(sampler: Imle, m: int, reps: int) -> float:
    """Return the seconds of two clusters' products; the match's may be computed in blocks."""
    match, steps = imle_products(sampler, m)
    (rows, inner, columns), block = next(iter(match)), 512
    rates = timing.product_rates([*match, (block, inner, columns), *steps], reps)
    rates[rows, inner, columns] = max(rates[rows, inner, columns], rates[block, inner, columns])
    return 2 * timing.floor(match + steps, rates)


def imle_peers(dim: int) -> dict[str, timing.Call]:
    """Return epochs of two clusters in PyTorch, by match, for this or another process."""
    torch.set_num_threads(timing.THREADS)
    sampler, data = Imle(dim), members(MEMBERS, dim)
    state = sampler.init(jax.random.key(1), data)
    nets = [mapping(sampler, state.mapping.params, c) for c in (0, 1)]
    z = [torch.tensor(np.asarray(data.latents[c])) for c in (0, 1)]

    def by(match: Match) -> timing.Call:
        def call() -> None:
            for c in (0, 1):
                imle_epoch(sampler, nets[c], z[c], match)
            synchronize()

        return call

    return {name: by(match) for name, match in matches().items()}


def matches() -> dict[str, Match]:
    """Return PyTorch's ways to match; the first one is used for the check."""
    if torch.get_default_device().type == "cuda":
        return {"PyTorch, cdist": cdist_match}
    return {"PyTorch + FAISS": faiss_match, "PyTorch, cdist": cdist_match}


def imle_case(dim: int, rate: float | None, reps: int) -> None:
    sampler, data = Imle(dim), members(MEMBERS, dim)
    start = sampler.init(jax.random.key(1), data)
    key = jax.random.key(2)
    z = [torch.tensor(np.asarray(data.latents[c])) for c in (0, 1)]

    # For the check, the same random numbers as ours.
    key_pool, key_order = jax.random.split(key)
    pool = sampler.pool_factor * (MEMBERS // sampler.batch)
    shape = (2, pool, sampler.batch, sampler.mapping.code_dim)
    codes = torch.tensor(np.asarray(jax.random.normal(key_pool, shape, jnp.float32)))
    noise = np.asarray(jax.random.uniform(key_order, (2, MEMBERS), jnp.float32))
    order = torch.tensor(np.argsort(noise, axis=1, kind="stable"))
    nets = [mapping(sampler, start.mapping.params, c) for c in (0, 1)]
    match = next(iter(matches().values()))
    theirs = [imle_epoch(sampler, nets[c], z[c], match, codes[c], order[c]) for c in (0, 1)]
    state, metrics = sampler.epoch(start, data, key, 0)
    # TF32 keeps 11 bits, so the nearest neighbours in the pool can differ.
    np.testing.assert_allclose(metrics["loss"], theirs, rtol=1e-3 if rate is None else 2e-2)

    box = [state]

    def ours() -> None:
        box[0], metrics = sampler.epoch(box[0], data, key, 0)
        jax.block_until_ready((box[0], metrics))

    name = f"imle {dim}-d, width {sampler.mapping.hidden_dim}"
    calls = {"cgjax": ours} | imle_peers(dim)
    if rate is None:
        told = timing.Told(imle_peers, dim)
        calls[f"... told {timing.openblas_core()}"] = told.call("PyTorch + FAISS")
        seconds = timing.medians(calls, reps)
        told.close()
        show(name, seconds, imle_floor(sampler, MEMBERS, reps))
        return
    products = sum(imle_products(sampler, MEMBERS), Counter())
    floor = 2 * timing.floor(products, dict.fromkeys(products, rate))
    show(name, timing.medians(calls, reps), floor)
    if dim == 512:
        training_start = time.perf_counter()
        state = sampler.init(jax.random.key(1), data)
        for epoch in range(400):
            state, metrics = sampler.epoch(state, data, jax.random.fold_in(key, epoch), epoch)
        jax.block_until_ready((state, metrics))
        print(f"    400 epochs: {time.perf_counter() - training_start:.2f} s")


def flow_epoch(
    sampler: Flow, params: dict[str, torch.Tensor], adam: Any, z: torch.Tensor, num_steps: int
) -> None:
    """Run an epoch of flow matching; z is (2, m, d); learning rate and averaging equal ours."""
    d, rows = z.shape[2], sampler.batch // 2
    average = {name: value.detach().clone() for name, value in params.items()}
    frequencies = torch.arange(1.0, TIME_FREQUENCIES + 1)
    cluster = torch.arange(2).repeat_interleave(rows)
    for _ in range(num_steps):
        q = torch.clamp((2 * torch.rand(2, rows) - 1) * flow.MAX_MARGIN, min=0)
        index = ((q + (1 - q) * torch.rand(2, rows)) * z.shape[1]).long().clamp(max=z.shape[1] - 1)
        target = torch.gather(z, 1, index[..., None].expand(-1, -1, d)).reshape(-1, d)
        e, q = torch.randn_like(target), q.reshape(-1, 1)
        angle = 0.5 * math.pi * (torch.randperm(2 * rows)[:, None] + 0.5) / (2 * rows)
        sin, cos = torch.sin(angle), torch.cos(angle)
        x, velocity = cos * e + sin * target, 0.5 * math.pi * (cos * target - sin * e)
        waves = angle * frequencies
        waves = torch.cat([torch.sin(waves), torch.cos(waves), 2 * q], 1)
        a = x @ params["inner"] + waves @ params["waves"] + params["cluster"][cluster]
        a = torch.nn.functional.silu(a)
        a = torch.nn.functional.silu(torch.addmm(params["bias"], a, params["hidden"]))
        predicted = torch.addmm(params["shift"], a, params["outer"])
        loss = torch.nn.functional.mse_loss(predicted, velocity)
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(params.values()), 0.005)


def flow_products(sampler: Flow, num_steps: int) -> Products:
    """Return the matrix products of `num_steps` steps."""
    rows, d, w = sampler.batch, sampler.latent_dim, sampler.width
    waves = 2 * TIME_FREQUENCIES + 1
    first = Counter({(rows, d, w): num_steps, (rows, waves, w): num_steps})
    rest = Counter({(rows, w, w): num_steps})
    rest[rows, w, d] += num_steps
    # The gradients of the inputs are not needed.
    inputs = Counter({(inner, rows, w): num_steps for _, inner, w in first})
    return first + rest + inputs + backward(rest)


def flow_case(dim: int, rate: float | None, reps: int) -> None:
    sampler, data = Flow(dim), members(10_000, dim)
    state = sampler.init(jax.random.key(1), data)
    params = {
        name: torch.tensor(np.asarray(value)).requires_grad_()
        for name, value in state.params.items()
    }
    adam = torch.optim.Adam(list(params.values()), lr=sampler.learning_rate, betas=(0.9, 0.99))
    z = torch.tensor(np.asarray(data.latents))
    num_steps = 20_000 // sampler.batch
    box = [state]

    def ours() -> None:
        box[0], metrics = sampler.epoch(box[0], data, jax.random.key(2), 0)
        jax.block_until_ready((box[0], metrics))

    def theirs() -> None:
        flow_epoch(sampler, params, adam, z, num_steps)
        synchronize()

    seconds = timing.medians({"cgjax": ours, "PyTorch": theirs}, reps)
    products = flow_products(sampler, num_steps)
    rates = dict.fromkeys(products, rate) if rate else timing.product_rates(products, reps)
    show(f"flow {dim}-d, width {sampler.width}", seconds, timing.floor(products, rates))


def show(name: str, seconds: dict[str, float], floor: float) -> None:
    print(f"{name}: floor {1e3 * floor:.0f} ms")
    for who, s in seconds.items():
        ratio = "" if who == "cgjax" else f", {s / seconds['cgjax']:.2f}x"
        print(f"    {who:<20}{1e3 * s:>8.0f} ms, {floor / s:>4.0%} of the floor{ratio}", flush=True)


def gpu_rate(reps: int) -> float:
    """Return the operations a second of the largest product, by the faster of JAX and PyTorch."""
    a, b = (jax.random.normal(jax.random.key(i), (2048, 2048), jnp.float32) for i in (0, 1))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST))
    at, bt = torch.tensor(np.asarray(a)), torch.tensor(np.asarray(b))
    calls = {
        "jax": lambda: product(a, b).block_until_ready(),
        "torch": lambda: (at @ bt, synchronize()),
    }
    seconds = timing.medians(calls, reps)
    rates = {name: 2.0 * 2048**3 / s for name, s in seconds.items()}
    text = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in rates.items())
    print(f"2048^3 product, 1e9 operations a second: {text}")
    return max(rates.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--gpu", action="store_true")
    args = parser.parse_args()
    rate = None
    if args.gpu:
        torch.set_default_device("cuda")
        torch.backends.cuda.matmul.allow_tf32 = True
        print(f"{jax.devices()[0].device_kind}, medians of {args.reps}")
        rate = gpu_rate(2 * args.reps)
    else:
        torch.set_num_threads(timing.THREADS)
        print(f"{timing.processor()}, medians of {args.reps}")
    torch.manual_seed(0)
    for dim in (512, 100):
        imle_case(dim, rate, args.reps)
    for dim in (512, 100):
        flow_case(dim, rate, args.reps)


if __name__ == "__main__":
    main()
