"""StyleGAN3 written out in torch, straight from the notes on its format.

Nothing here is shared with the library; filters are those of the state dict.
"""

import math

import torch
import torch.nn.functional as F

DEFAULTS = {
    "num_layers": 14, "num_critical": 2, "first_cutoff": 2.0, "first_stopband": 2**2.1,
    "last_stopband_rel": 2**0.3, "margin_size": 10, "output_scale": 0.25, "conv_kernel": 3,
    "filter_size": 6, "lrelu_upsampling": 2, "use_radial_filters": False, "conv_clamp": 256,
}  # fmt: skip


def table(size, **options):
    """Return the layers' cutoffs, half widths, rates, sizes, and whether they are critical."""
    o = {**DEFAULTS, **options}
    rows = []
    for i in range(o["num_layers"] + 1):
        e = min(i / (o["num_layers"] - o["num_critical"]), 1)
        f0, t0 = o["first_cutoff"], o["first_stopband"]
        cutoff = f0 * (size / 2 / f0) ** e
        stop = t0 * (size / 2 * o["last_stopband_rel"] / t0) ** e
        rate = 2 ** math.ceil(math.log2(min(2 * stop, size)))
        pixels = size if i >= o["num_layers"] - 1 else rate + 2 * o["margin_size"]
        critical = i >= o["num_layers"] - o["num_critical"]
        rows.append((cutoff, max(stop, rate / 2) - cutoff, rate, pixels, critical))
    return rows


def layers(size, **options):
    """Return each layer's sizes, factors, taps and the bands of its filters."""
    o, rows = {**DEFAULTS, **options}, table(size, **options)
    found = []
    for i, (cutoff, half, rate, pixels, critical) in enumerate(rows):
        in_cutoff, in_half, in_rate, in_pixels, _ = rows[max(i - 1, 0)]
        rgb = i == len(rows) - 1
        middle = max(in_rate, rate) * (1 if rgb else o["lrelu_upsampling"])
        up, down = round(middle / in_rate), round(middle / rate)
        taps = [o["filter_size"] * k if k > 1 and not rgb else 1 for k in (up, down)]
        found.append({
            "in": in_pixels, "out": pixels, "k": 1 if rgb else o["conv_kernel"], "up": up,
            "down": down, "taps": taps, "rgb": rgb, "middle": middle,
            "up_design": (in_cutoff, in_half), "down_design": (cutoff, half),
            "radial": o["use_radial_filters"] and not critical and taps[1] > 1,
        })  # fmt: skip
    return found


def resample(x, taps, up=1, down=1, pad=(0, 0)):
    """Insert zeros, pad or crop, convolve, and keep every sample number 0, down, ...."""
    n, c, h, w = x.shape
    y = torch.zeros(n, c, h * up, w * up)
    y[:, :, ::up, ::up] = x
    y = F.pad(y, (*pad, *pad))
    kernel = taps if taps.ndim == 2 else torch.outer(taps, taps)
    kernel = kernel.flip(0, 1)[None, None] * up**2
    y = F.conv2d(y.reshape(n * c, 1, *y.shape[2:]), kernel)
    return y.reshape(n, c, *y.shape[2:])[:, :, ::down, ::down]


def stylegan3(w, z, size, label=None, psi=1.0, cutoff=None, rate=0.01, placed=None, **options):
    """Return every layer's activation by name, and the image."""
    o, plan = {**DEFAULTS, **options}, layers(size, **options)

    def moment(x):
        return x * torch.rsqrt((x**2).mean(dim=1, keepdim=True) + 1e-8)

    def full(x, name, factor=1.0):
        weight = w[f"{name}.weight"]
        return F.linear(x, weight * factor / math.sqrt(weight.shape[1]), w[f"{name}.bias"] * factor)

    y = moment(z)
    if label is not None:
        y = torch.cat((y, moment(full(label, "mapping.embed"))), dim=1)
    i = 0
    while f"mapping.fc{i}.weight" in w:
        y = F.leaky_relu(full(y, f"mapping.fc{i}", rate), 0.2) * math.sqrt(2)
        i += 1
    found = {"w": y}
    ws = y[:, None].repeat(1, len(plan) + 1, 1)
    mean = w["mapping.w_avg"]
    ws[:, :cutoff] = mean + psi * (ws[:, :cutoff] - mean)

    # The input.
    f0, _, s0, pixels, _ = table(size, **options)[0]
    t = full(ws[:, 0], "synthesis.input.affine")
    t = t / t[:, :2].norm(dim=1, keepdim=True)
    rows = []
    for cosine, sine, x, y in t:
        rotation = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        shift = torch.tensor([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
        matrix = rotation @ shift @ w["synthesis.input.transform"]
        matrix = matrix if placed is None else matrix @ placed
        freqs = w["synthesis.input.freqs"]
        phases = w["synthesis.input.phases"] + freqs @ matrix[:2, 2]
        freqs = freqs @ matrix[:2, :2]
        amplitude = (1 - (freqs.norm(dim=1) - f0) / (s0 / 2 - f0)).clamp(0, 1)
        line = ((torch.arange(pixels) + 0.5) / pixels - 0.5) * pixels / s0
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
        rows.append(torch.sin(2 * math.pi * (grid @ freqs.T + phases)) * amplitude)
    mix = w["synthesis.input.weight"]
    x = torch.stack(rows) @ mix.T / math.sqrt(len(mix))
    x = found["input"] = x.permute(0, 3, 1, 2)

    names = {int(n.split(".")[1].split("_")[0][1:]): n.split(".")[1] for n in w
             if n.startswith("synthesis.L")}  # fmt: skip
    for i, layer in enumerate(plan):
        name = f"synthesis.{names[i]}"
        weight, style = w[f"{name}.weight"], full(ws[:, i + 1], f"{name}.affine")
        if layer["rgb"]:
            kernels = weight[None] * style[:, None, :, None, None] / math.sqrt(weight.shape[1])
        else:
            weight = weight / (weight**2).mean(dim=(1, 2, 3), keepdim=True).sqrt()
            style = style / (style**2).mean().sqrt()
            kernels = weight[None] * style[:, None, :, None, None]
            norm = (kernels**2).sum(dim=(2, 3, 4), keepdim=True) + 1e-8
            kernels = kernels / norm.sqrt()
        kernels = kernels / w[f"{name}.magnitude_ema"].sqrt()
        x = torch.cat([F.conv2d(row[None], kernel, padding=layer["k"] - 1)
                       for row, kernel in zip(x, kernels, strict=True)])  # fmt: skip
        x = x + w[f"{name}.bias"][None, :, None, None]
        total = (layer["out"] - 1) * layer["down"] + 1
        total += -(layer["in"] + layer["k"] - 1) * layer["up"] + sum(layer["taps"]) - 2
        low = (total + layer["up"]) // 2
        one = torch.ones(1)
        x = resample(x, w.get(f"{name}.up_filter", one), layer["up"], 1, (low, total - low))
        if not layer["rgb"]:
            x = F.leaky_relu(x, 0.2) * math.sqrt(2)
        if o["conv_clamp"] is not None:
            x = x.clamp(-o["conv_clamp"], o["conv_clamp"])
        x = resample(x, w.get(f"{name}.down_filter", one), 1, layer["down"])
        found[names[i]] = x
    found["image"] = x * o["output_scale"]
    return found
