"""Loads the extensions, which register the operators `torch.ops.ketgrad.*`: `_C` and, for CUDA, `_C_cuda`."""

from __future__ import annotations

from importlib import import_module

import torch

OLDEST_TORCH = (2, 11)

_version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
if _version < OLDEST_TORCH:
    raise ImportError(f"ketgrad needs PyTorch {'.'.join(map(str, OLDEST_TORCH))} or newer, found {torch.__version__}")

try:
    from .. import _C
except ImportError as error:
    raise ImportError(
        f"ketgrad's extension does not load under PyTorch {torch.__version__}: {error}\n"
        "It was not built, or for another Python or PyTorch; build it again against the PyTorch in use:\n"
        "    python -m pip install --no-build-isolation --force-reinstall --no-deps ketgrad"
    ) from error


def _load_cuda() -> str:
    """Load the operators for CUDA; returns why there are none, or "".

    Without them there is no warning: everything else works, and calls with parameters on CUDA raise.
    """
    if torch.version.cuda is None:
        return "PyTorch is a CPU build"
    try:
        extension = import_module("ketgrad._C_cuda")
    except ModuleNotFoundError:
        return "built without CUDA (no nvcc was found, or KETGRAD_CUDA=0)"
    except ImportError as error:
        return f"the extension does not load: {error}"
    extension.connect(_C.registry_address())
    return ""


NO_CUDA = _load_cuda()
"""Why there are no operators for CUDA; "" if there are."""

__all__ = ["NO_CUDA", "_C"]
