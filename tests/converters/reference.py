"""The published networks written out in torch, straight from the notes on their formats.

Each function takes a state dict in its file's own names and a latent, and returns the activations
by layer name (NCHW) with "image". Nothing here is shared with the library.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


class Weights(dict):
    """A state dict that draws its tensors as it is asked for their shapes."""

    def __init__(self, seed=0):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, name, *shape, std=1.0, mean=0.0):
        self[name] = mean + std * torch.randn(shape, generator=self.generator)


def pixel_norm(x):
    return x / torch.sqrt((x**2).mean(dim=1, keepdim=True) + 1e-8)


def double(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


# pytorch_GAN_zoo


def zoo_layer(w, name, equalized=True, factor=1.0):
    """Weight and bias, both with the scale that the reference gives the layer's output."""
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    scale = math.sqrt(2 / math.prod(weight.shape[1:])) if equalized else 1.0
    return weight * scale * factor, bias * scale * factor


def pgan_zoo(w, z, depths, leak=0.2, alpha=0.0, equalized=True, tanh=False):
    found = {}
    x = pixel_norm(z)
    x = F.leaky_relu(F.linear(x, *zoo_layer(w, "formatLayer", equalized)), leak)
    x = found["format"] = pixel_norm(x.view(len(z), depths[0], 4, 4))

    def conv(x, name):
        return pixel_norm(
            F.leaky_relu(F.conv2d(x, *zoo_layer(w, name, equalized), padding=1), leak)
        )

    x = found["s0_c0"] = conv(x, "groupScale0.0")
    for i in range(len(depths) - 1):
        before = x
        x = found[f"s{i + 1}_c0"] = conv(double(x), f"scaleLayers.{i}.0")
        x = found[f"s{i + 1}_c1"] = conv(x, f"scaleLayers.{i}.1")
    last = len(depths) - 1
    image = F.conv2d(x, *zoo_layer(w, f"toRGBLayers.{last}", equalized))
    if alpha > 0:
        low = F.conv2d(before, *zoo_layer(w, f"toRGBLayers.{last - 1}", equalized))
        image = alpha * double(low) + (1 - alpha) * image
    found["image"] = torch.tanh(image) if tanh else image
    return found


def stylegan_zoo(w, z, depths, mappings, noise, leak=0.2, alpha=0.0, phi=0.5, tanh=False):
    def adain(x, name):
        mean = x.mean(dim=(2, 3), keepdim=True)
        variance = ((x**2).mean(dim=(2, 3), keepdim=True) - mean**2).clamp(min=0)
        x = (x - mean) * torch.rsqrt(variance + 1e-8)
        style = F.linear(style_w, *zoo_layer(w, f"{name}.styleModulator"))
        a, b = style[:, :, None, None].chunk(2, dim=1)
        return a * x + b

    found, noise = {}, iter(noise)
    y = pixel_norm(z)
    for i in range(mappings):
        y = F.leaky_relu(F.linear(y, *zoo_layer(w, f"mapping.FC.{i}", factor=0.01)), 0.2)
    found["w"] = y
    style_w = w["mean_w"] + phi * (y - w["mean_w"]) if phi < 1 else y

    def step(x, conv, noise_name, adain_name):
        if conv:
            x = F.conv2d(x, *zoo_layer(w, conv), padding=1)
        x = x + w[f"{noise_name}.weight"] * next(noise)
        return adain(F.leaky_relu(x, leak), adain_name)

    x = w["baseScale0"].expand(len(z), -1, -1, -1)
    x = found["s0_a0"] = step(x, None, "noiseMod00", "adain00")
    x = found["s0_a1"] = step(x, "conv0", "noiseMod01", "adain01")
    for i in range(len(depths) - 1):
        before = x
        for c in (0, 1):
            layer = f"scaleLayers.{i}."
            x = step(
                x if c else double(x),
                layer + str(2 * c),
                f"noiseModulators.{i}.{c}",
                layer + str(2 * c + 1),
            )
            found[f"s{i + 1}_a{c}"] = x
    image = F.conv2d(x, *zoo_layer(w, f"toRGBLayers.{len(depths) - 2}"))
    if alpha > 0:
        low = F.conv2d(before, *zoo_layer(w, f"toRGBLayers.{len(depths) - 3}"))
        image = alpha * double(low) + (1 - alpha) * image
    found["image"] = torch.tanh(image) if tanh else image
    return found


def dcgan(w, z, convolutions, norms, tanh=True):
    found = {}
    x = z[:, :, None, None]
    for i, name in enumerate(convolutions):
        stride, padding = (1, 0) if i == 0 else (2, 1)
        x = F.conv_transpose2d(x, w[f"{name}.weight"], stride=stride, padding=padding)
        if i < len(norms):
            names = ("running_mean", "running_var", "weight", "bias")
            x = F.relu(F.batch_norm(x, *(w[f"{norms[i]}.{n}"] for n in names), eps=1e-5))
            found[f"layer{i + 1}"] = x
    found["image"] = torch.tanh(x) if tanh else x
    return found


# genforce


def gain(weight, value, wscale=True):
    return weight * (value / math.sqrt(math.prod(weight.shape[1:])) if wscale else 1.0)


def fused_up(x, weight):
    """The fused up-convolution; weight [in, out, 3, 3]: four shifted sums, then transposed."""
    padded = F.pad(weight, (1, 1, 1, 1))
    kernel = sum(padded[:, :, a : a + 4, b : b + 4] for a in (0, 1) for b in (0, 1))
    return F.conv_transpose2d(x, kernel, stride=2, padding=1)


def blend_lod(images, lod):
    """Images from the lowest resolution up -> the image at a level of detail."""
    image = None
    for b, make in enumerate(images):
        level = len(images) - 1 - b
        if level - 1 < lod <= level:
            image = make()
        elif level < lod < level + 1:
            share = math.ceil(lod) - lod
            image = make() * share + double(image) * (1 - share) if image is not None else make()
        elif lod >= level + 1:
            image = double(image)
    return image


def pggan_genforce(w, z, resolutions, label=None, fused=False, wscale=True, lod=0.0, tanh=False):
    found, acts = {}, []
    x = pixel_norm(z)
    if label is not None:
        x = torch.cat((x, label), dim=1)
    x = x[:, :, None, None]
    root = math.sqrt(2)
    for layer in range(2 * resolutions):
        b = layer // 2
        if lod >= resolutions - b:  # level of the block + 1
            break
        weight, bias = w[f"layer{layer}.weight"], w[f"layer{layer}.bias"]
        x = pixel_norm(x)
        if layer == 0:
            x = F.conv2d(x, gain(weight, root, wscale), bias, padding=3)
        elif layer % 2:
            x = F.conv2d(x, gain(weight, root, wscale), bias, padding=1)
        elif fused:
            scale = root / math.sqrt(9 * weight.shape[0]) if wscale else 1.0
            x = fused_up(x, weight * scale) + bias[None, :, None, None]
        else:
            x = F.conv2d(double(x), gain(weight, root, wscale), bias, padding=1)
        x = found[f"layer{layer}"] = F.leaky_relu(x, 0.2)
        found[f"layer{layer}_pn"] = pixel_norm(x)
        if layer % 2:
            acts.append(x)

    def make(b):
        kernel = gain(w[f"output{b}.weight"], 1.0, wscale)
        return lambda: F.conv2d(pixel_norm(acts[b]), kernel, w[f"output{b}.bias"])

    image = blend_lod([make(b) for b in range(resolutions)], lod)
    found["image"] = torch.tanh(image) if tanh else image
    return found


def mapping_genforce(w, z, layers, value, activation, label=None, wscale=True, rate=0.01):
    x = z
    if label is not None:
        x = torch.cat((x, label @ w["mapping.label_weight"]), dim=1)
    x = pixel_norm(x)
    for i in range(layers):
        weight = gain(w[f"mapping.dense{i}.weight"], value, wscale) * rate
        x = activation(F.linear(x, weight, w[f"mapping.dense{i}.bias"] * rate))
    return x


def truncate(y, mean, num, style_dim, psi, layers):
    """Styles by layer; `layers` None for all."""
    wp = y.view(len(y), -1, style_dim)
    mean = mean.view(1, -1, style_dim)
    wp = wp.expand(len(y), num, style_dim)
    mean = mean.expand(len(y), num, style_dim)
    count = num if layers is None else layers
    truncated = mean + (wp - mean) * psi
    return torch.cat((truncated[:, :count], wp[:, count:]), dim=1)


def stylegan_genforce(
    w, z, resolutions, mappings, label=None, fused=lambda r: r >= 128, wscale=True, lod=0.0,
    tanh=False, psi=1.0, psi_layers=None, noise=None, rate=0.01,
):  # fmt: skip
    def lrelu(x):
        return F.leaky_relu(x, 0.2)

    found, acts = {}, []
    y = mapping_genforce(w, z, mappings, math.sqrt(2), lrelu, label, wscale, rate)
    found["w"] = y
    style_dim = w["synthesis.layer0.style.weight"].shape[1]
    wp = truncate(y, w["truncation.w_avg"], 2 * resolutions, style_dim, psi, psi_layers)
    x = w["synthesis.layer0.const"].expand(len(z), -1, -1, -1)
    for layer in range(2 * resolutions):
        name, b = f"synthesis.layer{layer}", layer // 2
        if lod >= resolutions - b:
            break
        up = layer > 0 and layer % 2 == 0
        if layer:
            weight = gain(w[f"{name}.weight"], math.sqrt(2), wscale)
            if up and fused(4 * 2**b):
                x = fused_up(x, weight.permute(1, 0, 2, 3))
            else:
                x = F.conv2d(double(x) if up else x, weight, padding=1)
        if up:
            kernel = w[f"{name}.blur.kernel"]
            x = F.conv2d(x, kernel, padding=1, groups=x.shape[1])
        added = w[f"{name}.apply_noise.noise"] if noise is None else noise[layer]
        x = x + added * w[f"{name}.apply_noise.weight"][None, :, None, None]
        x = lrelu(x + w[f"{name}.bias"][None, :, None, None])
        x = x - x.mean(dim=(2, 3), keepdim=True)
        x = x / torch.sqrt((x**2).mean(dim=(2, 3), keepdim=True) + 1e-8)
        style = F.linear(
            wp[:, layer], gain(w[f"{name}.style.weight"], 1.0, wscale), w[f"{name}.style.bias"]
        )
        scale, shift = style[:, :, None, None].chunk(2, dim=1)
        x = found[f"layer{layer}"] = x * (scale + 1) + shift
        if layer % 2:
            acts.append(x)

    def make(b):
        kernel = gain(w[f"synthesis.output{b}.weight"], 1.0, wscale)
        return lambda: F.conv2d(acts[b], kernel, w[f"synthesis.output{b}.bias"])

    image = blend_lod([make(b) for b in range(resolutions)], lod)
    found["image"] = torch.tanh(image) if tanh else image
    return found


# StyleGAN2

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


def filtered(x, before, after, taps=TAPS):
    kernel = 4 * torch.outer(taps, taps).flip(0, 1).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(x, (before, after, before, after)), kernel, groups=x.shape[1])


def upsample2(x, taps=TAPS):
    n, c, h, w = x.shape
    zeros = torch.zeros(n, c, 2 * h, 2 * w)
    zeros[:, :, ::2, ::2] = x
    return filtered(zeros, (len(taps) + 1) // 2, (len(taps) - 2) // 2, taps)


def modulated(x, weight, style, up=False, demodulate=True, taps=TAPS):
    """One kernel a row, as the definition says; `weight` as a transposed convolution uses it."""
    rows = []
    for row, s in zip(x, style, strict=True):
        kernel = weight * s[None, :, None, None]
        if demodulate:
            kernel = kernel / torch.sqrt((kernel**2).sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        if up:
            y = F.conv_transpose2d(row[None], kernel.transpose(0, 1), stride=2)
            # Of the padding that upsampling alone takes, the convolution's own two pixels are gone.
            rows.append(filtered(y, (len(taps) + 1) // 2 - 1, (len(taps) - 2) // 2, taps))
        else:
            rows.append(F.conv2d(row[None], kernel, padding=weight.shape[-1] // 2))
    return torch.cat(rows)


def act2(x):
    return math.sqrt(2) * F.leaky_relu(x, 0.2)


def stylegan2_genforce(
    w, z, resolutions, mappings, label=None, skip=True, demodulate=True, wscale=True, tanh=False,
    psi=1.0, psi_layers=None, noise=None, rate=0.01,
):  # fmt: skip
    found, image = {}, None
    y = found["w"] = mapping_genforce(w, z, mappings, 1.0, act2, label, wscale, rate)
    style_dim = w["synthesis.layer0.style.weight"].shape[1]
    wp = truncate(y, w["truncation.w_avg"], 2 * resolutions, style_dim, psi, psi_layers)

    def style(name, index):
        weight = gain(w[f"{name}.style.weight"], 1.0, wscale)
        return F.linear(wp[:, index], weight, w[f"{name}.style.bias"]) + 1

    x = found["early_layer"] = w["synthesis.early_layer.const"].expand(len(z), -1, -1, -1)
    for layer in range(2 * resolutions - 1):
        name, r, up = f"synthesis.layer{layer}", (layer + 1) // 2, layer % 2 == 1
        kernel = gain(w[f"{name}.weight"], 1.0, wscale)
        kernel = kernel.flip(2, 3) if up else kernel
        x = modulated(x, kernel, style(name, layer), up, demodulate)
        added = w[f"{name}.noise"] if noise is None else noise[layer]
        x = x + added * w[f"{name}.noise_strength"]
        x = found[f"layer{layer}"] = act2(x + w[f"{name}.bias"][None, :, None, None])
        if layer % 2 == 0 and (skip or r == resolutions - 1):
            out = f"synthesis.output{r}"
            kernel = gain(w[f"{out}.weight"], 1.0, wscale)
            rgb = modulated(x, kernel, style(out, 2 * r + 1), demodulate=False)
            rgb = rgb + w[f"{out}.bias"][None, :, None, None]
            image = rgb if image is None else rgb + upsample2(image)
    found["image"] = torch.tanh(image) if tanh else image
    return found


def stylegan2_nvidia(
    w, z, resolutions, mappings, label=None, skip=True, psi=1.0, cutoff=None, clamp=None,
    noise=None, rate=0.01, taps=TAPS,
):  # fmt: skip
    def moment(x):
        return x * torch.rsqrt((x**2).mean(dim=1, keepdim=True) + 1e-8)

    def full(x, name, factor=1.0):
        weight = w[f"{name}.weight"]
        weight = weight * (factor / math.sqrt(weight.shape[1]))
        return F.linear(x, weight, w[f"{name}.bias"] * factor)

    def bounded(x):
        return x if clamp is None else x.clamp(-clamp, clamp)

    found, image, index = {}, None, 0
    y = moment(z)
    if label is not None:
        y = torch.cat((y, moment(full(label, "mapping.embed"))), dim=1)
    for i in range(mappings):
        y = act2(full(y, f"mapping.fc{i}", rate))
    found["w"] = y
    ws = truncate(y, w["mapping.w_avg"], 2 * resolutions, y.shape[1], psi, cutoff)
    x = w["synthesis.b4.const"].expand(len(z), -1, -1, -1)
    for r in range(resolutions):
        block = f"synthesis.b{4 * 2**r}"
        for part in ("conv1",) if r == 0 else ("conv0", "conv1"):
            name = f"{block}.{part}"
            style = full(ws[:, index], f"{name}.affine")
            x = modulated(x, w[f"{name}.weight"], style, part == "conv0", taps=taps)
            if noise is not None:
                x = x + noise[index] * w[f"{name}.noise_strength"]
            elif f"{name}.noise_const" in w:
                x = x + w[f"{name}.noise_const"] * w[f"{name}.noise_strength"]
            x = act2(x + w[f"{name}.bias"][None, :, None, None])
            x = found[f"b{4 * 2**r}_{part}"] = bounded(x)
            index += 1
        if skip or r == resolutions - 1:
            name = f"{block}.torgb"
            weight = w[f"{name}.weight"]
            style = full(ws[:, index], f"{name}.affine") / math.sqrt(weight.shape[1])
            rgb = modulated(x, weight, style, demodulate=False)
            rgb = bounded(rgb + w[f"{name}.bias"][None, :, None, None])
            image = rgb if image is None else rgb + upsample2(image, taps)
    found["image"] = image
    return found


def stylegan2_rosinality(w, z, size, psi=1.0, noise=None, rate=0.01, taps=TAPS):
    def full(x, name, factor=1.0):
        weight = w[f"{name}.weight"]
        return F.linear(x, weight * factor / math.sqrt(weight.shape[1]), w[f"{name}.bias"] * factor)

    def modulate(x, name, index, up=False, demodulate=True):
        weight = w[f"{name}.conv.weight"][0]
        style = full(ws[:, index], f"{name}.conv.modulation")
        return modulated(x, weight / math.sqrt(weight[0].numel()), style, up, demodulate, taps)

    found, y, i = {}, pixel_norm(z), 1
    while f"style.{i}.weight" in w:
        y = act2(full(y, f"style.{i}", rate))
        i += 1
    found["w"], resolutions = y, int(math.log2(size)) - 1
    mean = w.get("latent_avg", torch.zeros(y.shape[1]))
    ws = truncate(y, mean, 2 * resolutions, y.shape[1], min(psi, 1.0), None)
    x = found["input"] = w["input.input"].expand(len(z), -1, -1, -1)
    image = None
    for layer in range(2 * resolutions - 1):
        name = f"convs.{layer - 1}" if layer else "conv1"
        x = modulate(x, name, layer, layer % 2 == 1)
        if noise is not None:
            x = x + noise[layer] * w[f"{name}.noise.weight"]
        elif f"noises.noise_{layer}" in w:
            x = x + w[f"noises.noise_{layer}"] * w[f"{name}.noise.weight"]
        x = act2(x + w[f"{name}.activate.bias"][None, :, None, None])
        found[f"convs_{layer - 1:02d}" if layer else "conv1"] = x
        if layer % 2 == 0:
            out = f"to_rgbs.{layer // 2 - 1}" if layer else "to_rgb1"
            rgb = modulate(x, out, layer + 1, demodulate=False) + w[f"{out}.bias"]
            image = rgb if image is None else rgb + upsample2(image, taps)
    found["image"] = image
    return found


# GANDissect


def pggan_netdissect(w, z, layers, output):
    found = {}
    x = z[:, :, None, None]

    def scaled(x, name, value, padding):
        weight = w[f"{name}.conv.weight"]
        y = F.conv2d(x, weight, padding=padding) * (value / math.sqrt(weight[0].numel()))
        return y + w[f"{name}.wscale.b"][None, :, None, None]

    for n in range(1, layers + 1):
        x = pixel_norm(x)
        if n > 1 and n % 2 == 1:
            x = double(x)
        x = F.leaky_relu(scaled(x, f"layer{n}", math.sqrt(2), 3 if n == 1 else 1), 0.2)
        found[f"layer{n}"], found[f"layer{n}_pn"] = x, pixel_norm(x)
    found["image"] = scaled(pixel_norm(x), output, 1.0, 0)
    return found


# BigGAN-deep


def spectral(w, name, eps):
    weight = w[f"{name}.weight_orig"]
    matrix, u = weight.reshape(len(weight), -1), w[f"{name}.weight_u"]
    if f"{name}.weight_v" in w:
        v = w[f"{name}.weight_v"]
    else:
        v = F.normalize(matrix.T @ u, dim=0, eps=eps)
        u = F.normalize(matrix @ v, dim=0, eps=eps)
    return weight / torch.dot(u, matrix @ v)


def biggan(w, z, classes, t, config):
    eps, ch = config["eps"], config["channel_width"]
    found = {}
    cond = torch.cat((z, F.linear(classes, w["embeddings.weight"])), dim=1)

    def statistics(name):
        step = 1.0 / (config["n_stats"] - 1)
        coefficient, start = math.modf(t / step)
        start = int(start)
        rows = []
        for kind in ("running_means", "running_vars"):
            table = w[f"{name}.{kind}"]
            row = table[start]
            if coefficient != 0.0:
                row = table[start] * coefficient + table[start + 1] * (1 - coefficient)
            rows.append(row[None, :, None, None])
        return rows

    def norm(x, name):
        mean, variance = statistics(name)
        scale = 1 + F.linear(cond, spectral(w, f"{name}.scale", eps))
        offset = F.linear(cond, spectral(w, f"{name}.offset", eps))
        x = (x - mean) / torch.sqrt(variance + eps)
        return x * scale[:, :, None, None] + offset[:, :, None, None]

    x = F.linear(cond, spectral(w, "generator.gen_z", eps), w["generator.gen_z.bias"])
    found["gen_z"] = x
    x = x.view(-1, 4, 4, 16 * ch).permute(0, 3, 1, 2)
    index = 0
    for number, (up, width_in, width_out) in enumerate(config["layers"]):
        if number == config["attention_layer_position"]:
            x = found[f"layers_{index:02d}"] = attention(w, x, f"generator.layers.{index}", eps)
            index += 1
        name, h = f"generator.layers.{index}", x
        for j in range(4):
            h = torch.relu(norm(h, f"{name}.bn_{j}"))
            if up and j == 1:
                h = double(h)
            kernel = spectral(w, f"{name}.conv_{j}", eps)
            h = F.conv2d(h, kernel, w[f"{name}.conv_{j}.bias"], padding=kernel.shape[-1] // 2)
        if width_in != width_out:
            x = x[:, : x.shape[1] // 2]
        x = found[f"layers_{index:02d}"] = h + (double(x) if up else x)
        index += 1
    mean, variance = statistics("generator.bn")
    x = (x - mean) / torch.sqrt(variance + eps)
    x = x * w["generator.bn.weight"][:, None, None] + w["generator.bn.bias"][:, None, None]
    kernel = spectral(w, "generator.conv_to_rgb", eps)
    x = F.conv2d(torch.relu(x), kernel, w["generator.conv_to_rgb.bias"], padding=1)
    found["image"] = torch.tanh(x[:, :3])
    return found


def attention(w, x, name, eps):
    n, c, h, width = x.shape

    def conv(x, part):
        return F.conv2d(x, spectral(w, f"{name}.snconv1x1_{part}", eps))

    theta = conv(x, "theta").flatten(2)
    phi = F.max_pool2d(conv(x, "phi"), 2).flatten(2)
    g = F.max_pool2d(conv(x, "g"), 2).flatten(2)
    scores = torch.softmax(theta.transpose(1, 2) @ phi, dim=-1)
    out = (g @ scores.transpose(1, 2)).view(n, c // 2, h, width)
    return x + w[f"{name}.gamma"] * conv(out, "o_conv")


# BigGAN-PyTorch


def biggan_pytorch(w, z, classes, blocks, eps=1e-5, statistics="stored_{}"):
    def normed(name):
        weight = w[f"{name}.weight"]
        if f"{name}.u0" not in w:
            return weight
        matrix = weight.reshape(len(weight), -1)
        v = F.normalize(w[f"{name}.u0"] @ matrix, eps=1e-12)
        u = F.normalize(v @ matrix.T, eps=1e-12)
        return weight / (v @ matrix.T @ u.T)

    def conv(x, name):
        kernel = normed(name)
        return F.conv2d(x, kernel, w.get(f"{name}.bias"), padding=kernel.shape[-1] // 2)

    def norm(x, name, scale, shift):
        mean, variance = (w[f"{name}.{statistics.format(part)}"] for part in ("mean", "var"))
        x = F.batch_norm(x, mean, variance, None, None, False, 0.1, eps)
        return x * scale[:, :, None, None] + shift[:, :, None, None]

    def conditional(x, name, y):
        if "shared.weight" in w:
            scale, shift = (F.linear(y, normed(f"{name}.{part}")) for part in ("gain", "bias"))
        else:
            scale, shift = (y @ w[f"{name}.{part}.weight"] for part in ("gain", "bias"))
        return norm(x, name, 1 + scale, shift)

    embedded = classes @ w["shared.weight"] if "shared.weight" in w else classes
    piece = w["linear.weight"].shape[1]
    pieces = z.split(piece, dim=1)
    conditions = [torch.cat((embedded, p), dim=1) for p in pieces[1:]] or [embedded] * blocks
    found = {}
    x = found["linear"] = F.linear(pieces[0], normed("linear"), w["linear.bias"])
    first = w["blocks.0.0.conv1.weight"].shape[1]
    size = math.isqrt(x.shape[1] // first)
    x = x.view(len(z), first, size, size)
    for i in range(blocks):
        name, y = f"blocks.{i}.0", conditions[i]
        h = double(torch.relu(conditional(x, f"{name}.bn1", y)))
        h = conv(
            torch.relu(conditional(conv(h, f"{name}.conv1"), f"{name}.bn2", y)), f"{name}.conv2"
        )
        x = h + conv(double(x), f"{name}.conv_sc")
        name = f"blocks.{i}.1"
        if f"{name}.gamma" in w:
            n, c, height, width = x.shape
            theta = conv(x, f"{name}.theta").flatten(2)
            phi, g = (F.max_pool2d(conv(x, f"{name}.{p}"), 2).flatten(2) for p in ("phi", "g"))
            scores = torch.softmax(theta.transpose(1, 2) @ phi, dim=-1)
            out = conv((g @ scores.transpose(1, 2)).view(n, c // 2, height, width), f"{name}.o")
            x = w[f"{name}.gamma"] * out + x
        found[f"block{i}"] = x
    name = "output_layer.0"
    x = norm(x, name, w[f"{name}.gain"][None], w[f"{name}.bias"][None])
    found["image"] = torch.tanh(conv(torch.relu(x), "output_layer.2"))
    return found
