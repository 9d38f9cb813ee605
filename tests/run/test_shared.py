"""What several processes cannot share is refused in one line, before any work."""

import pytest

from cgjax.errors import UserError
from cgjax.run.run_checks import check_processes
from tests.run.changes import small


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        (
            "cluster",
            "backend",
            "faiss",
            r"=faiss is for one process; .*, or use jax$",
        ),
        ("cluster", "num_clusters", "auto", r"=auto is for one process; .*, or give a number$"),
        ("cluster", "trimmed", 0.05, r"^--config.cluster.trimmed is for one process"),
        ("hierarchy", "splits", ["0/layer2-k2"], r"^--config.hierarchy.splits is for one process"),
    ],
)
def test_a_setting_that_several_processes_cannot_share(section, name, value, message):
    config = small()
    check_processes(config, "run")
    config[section][name] = value
    with pytest.raises(UserError, match=message):
        check_processes(config, "run")


def test_a_sweep_is_for_one_process():
    with pytest.raises(UserError, match=r"^--mode=sweep is for one process; leave "):
        check_processes(small(), "sweep")
