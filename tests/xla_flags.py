"""The flags that XLA gets in tests, and in the commands that tests start.

Most of a test's time is compilation, of programs that run once: XLA is asked not to optimise its
own loops (the products and convolutions are a library's, the same at every level) and, where it
still has them, to write them by its older emitters, which compile in a third of the time. As a user
runs them: XLA_FLAGS="--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true" pytest.
"""

from importlib.metadata import version

QUICK = "--xla_backend_optimization_level=0" + (
    " --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""
)
FOUR_DEVICES = "--xla_force_host_platform_device_count=4"
