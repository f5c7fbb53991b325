"""Loads the extension `ketgrad._C`, which registers the operators `torch.ops.ketgrad.*`."""

from __future__ import annotations

import torch

OLDEST_TORCH = (2, 11)

_version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
if _version < OLDEST_TORCH:
    raise ImportError(f"ketgrad needs PyTorch {'.'.join(map(str, OLDEST_TORCH))} or newer, found {torch.__version__}")

try:
    from . import _C
except ImportError as error:
    raise ImportError(
        f"ketgrad's extension does not load under PyTorch {torch.__version__}: {error}\n"
        "It was not built, or for another Python or PyTorch; build it again against the PyTorch in use:\n"
        "    python -m pip install --no-build-isolation --force-reinstall --no-deps ketgrad"
    ) from error

__all__ = ["_C"]
