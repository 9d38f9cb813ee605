"""How clear a two-step leaf is: which way a face looks, then how bright the image is.

    python -m cgjax.main --config=configs/dcgan_pose.py --workdir=RUN \\
        --config.hierarchy.space=spherical --config.hierarchy.splits=0/layer4-k2,1/layer4-k2
    python benchmarks/leaves.py --workdir=RUN [--num=2000]

Every leaf is drawn by the run's sampler and verified, at margins 0 and 0.5. Printed are the share
of images on the leaf's side of yaw 0 (judge face_mesh, among the faces that it finds) and of the
parent's median brightness, with 95% intervals; and the Frechet distance to held-out members of the
leaf beside its floor, the distance between two such sets of members.
"""

from __future__ import annotations

import argparse

import jax
import numpy as np
from printing import share_text

from cgjax.evaluation.distances import frechet
from cgjax.evaluation.extractors import pca_pixels
from cgjax.evaluation.judges import load_judge
from cgjax.run.opening import load_run
from cgjax.runtime.keys import named_key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--num", type=int, default=2000)
    options = parser.parse_args()
    run = load_run(options.workdir)
    face, statistics = load_judge("face_mesh"), load_judge("image_statistics")
    root = jax.random.key(77)
    print(
        f"{'leaf':>6}{'margin':>8}{'acceptance':>12}{'side of yaw':>28}{'brightness':>28}  Frechet"
    )
    for split in run.held.splits:
        parent = run.sample(root, str(split.path[0]), options.num, "rejection")
        middle = float(np.median(statistics(parent.images)["brightness"]))
        for c in range(split.num_clusters):
            path = f"{split.path[0]}/{c}"
            members = [
                run.sample(named_key(root, path, i), path, options.num, "rejection").images
                for i in range(2)
            ]
            yaw = np.sign(np.nanmedian(face(members[0])["yaw"]))
            bright = np.sign(np.median(statistics(members[0])["brightness"]) - middle)
            for margin in (0.0, 0.5):
                drawn = run.sample(named_key(root, path, 3), path, options.num, margin=margin)
                seen = face(drawn.images)["yaw"]
                seen = seen[~np.isnan(seen)]
                level = statistics(drawn.images)["brightness"] - middle
                line = f"{path:>6}{margin:>8g}{drawn.acceptance:>12.3f}"
                line += f"{share_text(seen * yaw > 0):>28}{share_text(level * bright > 0):>28}"
                if margin == 0:
                    line += "  " + compare(drawn.images, *members)
                print(line, flush=True)


def compare(drawn: np.ndarray, first: np.ndarray, second: np.ndarray) -> str:
    """Return the distance to members and its floor, in principal components of the members."""
    feature = pca_pixels(first)
    rows = [feature(images) for images in (drawn, first, second)]
    distance, floor = frechet(rows[0], rows[2]), frechet(rows[1], rows[2])
    return f"{distance:.1f}, floor {floor:.1f}, ratio {distance / floor:.2f}"


if __name__ == "__main__":
    main()
