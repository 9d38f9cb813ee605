"""Pickles as NVIDIA's code writes them, with source code that its loader would execute."""

import pickle
import sys
import types
import warnings
from collections import OrderedDict

import numpy as np
import torch

# Modules are pickled with their source code by a reduce function, tensors with their storages as
# bytes.


def _reconstruct_persistent_obj(meta):
    exec(meta["module_src"], {})
    raise AssertionError("the file's code was run")


class EasyDict(dict):
    """As dnnlib's."""


class _Persistent:
    def __init__(self, class_name, source, **state):
        self.class_name, self.source, self.state = class_name, source, state

    def __reduce__(self):
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.source,
            "class_name": self.class_name,
            "state": self.state,
        }
        return _reconstruct_persistent_obj, (meta,), None


def module(class_name, source, tensors, values=None, **settings):
    """Nest a state dict into modules, as in torch, with further attributes `values` by path."""
    children, own, kept, below = {}, OrderedDict(), {}, {}
    for path, value in (values or {}).items():
        head, _, rest = path.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = value
        else:
            kept[head] = value
    for name, value in tensors.items():
        head, _, rest = name.partition(".")
        if rest:
            children.setdefault(head, {})[rest] = value
        else:
            own[name] = torch.nn.Parameter(value) if value.ndim else value
    return _Persistent(
        class_name,
        source,
        training=False,
        weight_gain=np.float64(0.5),
        sizes=np.arange(3),
        **kept,
        _init_kwargs=EasyDict(settings),
        _parameters=OrderedDict((n, v) for n, v in own.items() if v.requires_grad),
        _buffers=OrderedDict((n, v) for n, v in own.items() if not v.requires_grad),
        _modules=OrderedDict(
            (n, module("Part", source, t, below.get(n))) for n, t in children.items()
        ),
    )


def dumps(content, protocol=None):
    """Pickle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says its own storages are deprecated
        return pickle.dumps(content, protocol=protocol)


def loads(data):
    """Unpickle as the authors do, which runs the file's code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pickle.loads(data)


def as_nvidia_s(monkeypatch):
    """Give the stand-ins above the names of NVIDIA's code during a test."""
    for name, member in (
        ("torch_utils.persistence", _reconstruct_persistent_obj),
        ("dnnlib.util", EasyDict),
    ):
        holder = types.ModuleType(name)
        setattr(holder, member.__name__, member)
        monkeypatch.setattr(member, "__module__", name)
        monkeypatch.setitem(sys.modules, name, holder)
        monkeypatch.setitem(sys.modules, name.split(".")[0], types.ModuleType(name.split(".")[0]))
