"""`citations.bib` of a run: the works behind the methods that it used.

The entries are in `cgjax/assets/citations.bib`; the tables below say which method cites which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from cgjax.config.distance_features import INCEPTION, kind_of_feature
from cgjax.config.leaves import AUTO
from cgjax.config.training import MEASURED

THE_PAPER = "georgopoulos2022cluster"
FLOW = ("lipman2023flow", "albergo2023stochastic", "ho2021classifier")
KMEANS = ("lloyd1982least", "arthur2007kmeans")

GENERATORS: dict[str, tuple[str, ...]] = {
    "dcgan": ("radford2016unsupervised",),
    "pgan": ("karras2018progressive",),
    "stylegan": ("karras2019style",),
    "stylegan2": ("karras2020analyzing",),
    "stylegan3": ("karras2021alias",),
    "biggan": ("brock2019large",),
    "biggan_pytorch": ("brock2019large",),
    "residual": ("mescheder2018which",),
}
"""By family; a user's own generator has none."""

SAMPLERS: dict[str, tuple[str, ...]] = {
    "rejection": (),
    "flow": FLOW,
    "flow_one_step": FLOW,
    "imle": (THE_PAPER, "li2018implicit", "hoshen2019non"),
    "imle_residual": (THE_PAPER, "li2018implicit"),
    "imle_adaptive": ("li2018implicit", "aghabozorgi2023adaptive"),
    "imle_rs": ("li2018implicit", "vashist2024rejection"),
    "gaussian": (),
    "mixture": (),
    "gan": ("goodfellow2014generative", "mescheder2018which"),
    "vae": ("kingma2014auto",),
}

SPACES: dict[str, tuple[str, ...]] = {
    "raw": (),
    "standardised": (),
    "pooled": (),
    "spherical": ("dhillon2001concept",),
}

CHOOSING = ("hennig2007cluster", "tibshirani2005cluster", "mourer2023selecting")
"""Methods that choose the number of clusters and measure their stability."""

DISTANCES = (
    *("heusel2017gans", "binkowski2018demystifying"),
    *("kynkaanniemi2019improved", "naeem2020reliable"),
)
DIRECTIONS = ("shen2021closed", "harkonen2020ganspace")

JUDGES: dict[str, tuple[str, ...]] = {
    "face_mesh": ("kartynnik2019real",),
    "age_gender": (),
    "heuristic_brightness": (),
    "heuristic_hair_tone": (),
    "image_statistics": (),
}

METHODS: dict[str, tuple[str, ...]] = {
    "gan": ("goodfellow2014generative",),
    "conditional": ("mirza2014conditional",),
    "random_labels": ("mirza2014conditional",),
    "pacgan2": ("lin2018pacgan",),
    "pacgan3": ("lin2018pacgan",),
    "pacgan4": ("lin2018pacgan",),
    "mgan": ("hoang2018mgan",),
    "fixed_clusters": ("sage2018logo",),
    "scgan": (),
    "scgan_online": (),
    "clustergan": ("mukherjee2019clustergan",),
}
"""Methods that train a generator; data, networks and scores are those of [Liu et al. 2020]."""

NETWORKS: dict[str, tuple[str, ...]] = {
    "planar": ("goodfellow2013maxout",),
    "planar_plain": ("goodfellow2013maxout",),
    "planar_modulated": ("goodfellow2013maxout", "ba2016layer", "rahimi2007random"),
    "dcgan": ("radford2016unsupervised",),
    "dcgan_flat": ("radford2016unsupervised",),
    "encoding_dcgan": ("radford2016unsupervised",),
    "sngan": ("miyato2018spectral",),
    "residual": ("mescheder2018which",),
}
DATA: dict[str, tuple[str, ...]] = {
    "stacked_digits": ("metz2017unrolled",),
    "cifar10": ("krizhevsky2009learning",),
}
"""Works behind the data, beside [Liu et al. 2020]."""


def works_of_run(
    config: Mapping[str, Any],
    family: str,
    *,
    swept: Sequence[str] | None = None,
    compared: bool = False,
    assigned: bool = False,
) -> str:
    """Return the BibTeX of a run that clusters a generator.

    Args:
        config: nested plain dicts.
        family: of the generator.
        swept: the judges of the run's sweep; None without a sweep.
        compared: whether there is a comparison.
        assigned: whether images were assigned to the clusters.
    """
    keys = [THE_PAPER, *KMEANS, *GENERATORS.get(family, ())]
    clustered = config["cluster"]
    keys += SPACES.get(clustered["space"], ())
    keys += ("cuesta1997trimmed",) if clustered["trimmed"] else ()
    uses_faiss = "faiss" in (clustered["backend"], config["samplers"]["imle"]["matcher"])
    keys += ("douze2024faiss",) if uses_faiss else ()
    keys += CHOOSING if swept is not None or clustered["num_clusters"] == AUTO else ()
    for name, settings in config["samplers"].items():
        keys += SAMPLERS[name] if settings["fit"] else ()
    keys += DISTANCES[:1]
    keys += _works_of_feature(config["evaluate"]["features"])
    judges = list(swept or ())
    if compared:
        judges.append(config["compare"]["judge"])
        keys += DISTANCES
        keys += DIRECTIONS if config["compare"]["directions"] else ()
    keys += ("liu2020diverse",) if assigned else ()
    keys += ("zhang2018unreasonable",) if assigned and config["assign"]["lpips"] else ()
    keys += [key for judge in judges for key in JUDGES.get(judge, ())]
    return entries(keys)


def works_of_training(config: Mapping[str, Any]) -> str:
    """Return the BibTeX of a run that trains a generator."""
    method = config["train"]["method"]
    own = ("mukherjee2019clustergan",) if method == "clustergan" else ("liu2020diverse",)
    keys = [*own, *METHODS[method], *KMEANS]
    keys += NETWORKS.get(config["network"]["name"], ()) + DATA.get(config["data"]["name"], ())
    keys += ("mescheder2018which",) if config["train"]["penalty"] else ()
    keys += ("zhu2017unpaired",) if config["train"]["cooldown"] else ()
    if config["data"]["name"] in MEASURED:
        keys += ("heusel2017gans", "kynkaanniemi2019improved")
        keys += _works_of_feature(config["score"]["features"])
    return entries(keys)


def _works_of_feature(name: str) -> tuple[str, ...]:
    return ("szegedy2016rethinking",) if kind_of_feature(name) == INCEPTION else ()


def entries(keys: Iterable[str]) -> str:
    """Return the entries with these keys, each once, sorted by key.

    Example:
        >>> entries(["lloyd1982least"]).splitlines()[0]
        '@article{lloyd1982least,'
    """
    works = bibliography()
    return "\n".join(works[key] for key in sorted(set(keys)))


def bibliography() -> dict[str, str]:
    """Return every entry by its key."""
    path = resources.files("cgjax.assets") / "citations.bib"
    parts = path.read_text(encoding="utf-8").split("\n\n")
    works = {}
    for part in parts:
        match = re.match(r"@\w+\{(\w+),", part.strip())
        assert match is not None, part
        works[match[1]] = part.strip() + "\n"
    return works
