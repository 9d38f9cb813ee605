"""A generator whose class shows: the images of class c are bright in channel c alone."""

import numpy as np

from cgjax.generators.weights import save_generator

NUM = 3
SIDE = 8


def save_coloured(folder):
    first = np.zeros((2 + NUM, 4, 4, NUM))
    first[:2] = np.random.default_rng(0).normal(0, 0.1, first[:2].shape)
    for c in range(NUM):
        first[2 + c, :, :, c] = 2
    return save_generator(
        folder,
        "dcgan",
        {"latent_dim": 2, "widths": [NUM], "num_classes": NUM},
        {
            "first": first.astype(np.float32),
            "scales.0": np.ones(NUM, np.float32),
            "shifts.0": np.zeros(NUM, np.float32),
            "output": np.broadcast_to(0.2 * np.eye(NUM, dtype=np.float32), (4, 4, NUM, NUM)),
        },
        source={"name": "coloured"},
        licence="none",
    )


def brightness(images):
    """A judge that is always right: the mean of each channel, and as class scores ten times it."""
    means = np.asarray(images).mean(axis=(1, 2))
    return means, 10 * means
