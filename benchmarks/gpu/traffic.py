"""Bytes that the loss of a language-model step reads and writes on a GPU: `python -m benchmarks.gpu.traffic`.

They bound its time there (a softmax computes little). Counted without a GPU and without numbers: every kernel's inputs
and outputs, at the dispatcher, for tensors that say they lie on one. Ours beside stock's (a linear layer under autocast
and cross entropy) and torch's own `linear_cross_entropy`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ulmfit_fastai.model import losses

VIEWS = ("device", "view", "slice", "split", "t", "transpose", "expand", "as_strided", "detach", "alias", "unsqueeze",
         "select", "_unsafe_view", "unbind", "empty", "new_empty", "empty_like", "squeeze", "lift_fresh")
GB_A_SECOND = {"T4": 260, "A100": 1400, "H100": 2600}
"""What a GPU's memory gives to such kernels (its makers' figures, less a fifth)."""


class Traffic(TorchDispatchMode):
    """Counts bytes by the kernel's name."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.kernels = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        name = op.name().split("::")[1].split(".")[0]
        if name in VIEWS:
            return out
        read, made = ([size(one) for one in pytree.tree_leaves(part) if isinstance(one, Tensor)]
                      for part in ((args, {k: v for k, v in (kwargs or {}).items() if k != "out"}), out))
        moved = sum(read) + sum(made)
        if name.startswith(("zero", "fill", "new_zeros", "new_full", "full", "ones")):
            moved = sum(made)
        elif name.startswith("gather"):  # a row's one number, and where it stands
            moved = 3 * sum(made)
        elif name.startswith("scatter"):
            moved = 2 * sum(read[1:])
        self.kernels += 1
        self.bytes[name] += moved
        return out


def size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Shapes without numbers, and the ways that are a GPU's: fused casts in softmax."""
    def log_softmax(rows: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
        if rows.dtype is torch.float16:  # one kernel, which a CPU build doesn't have
            return one_kernel(rows, dtype)
        return real(rows, dim, dtype=dtype)

    real = torch.log_softmax
    with (FakeTensorMode(), mock.patch.object(losses, "ON_CPU", ()),
          mock.patch.object(torch, "log_softmax", log_softmax)):
        yield


@torch.library.custom_op("traffic::log_softmax_of_halves", mutates_args=())
def one_kernel(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """torch's `_log_softmax(half_to_float=True)`."""
    return torch.log_softmax(rows.to(dtype), 1)


@one_kernel.register_fake
def _(rows: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(rows, dtype=dtype)


def count(who: str, tokens: int, words: int, features: int, dtype: torch.dtype) -> Traffic:
    """The traffic of one step's loss and its gradients."""
    with as_on_a_gpu():
        hidden = torch.empty(tokens, features, requires_grad=True)
        weight, bias = torch.empty(words, features, requires_grad=True), torch.empty(words, requires_grad=True)
        target = torch.empty(tokens, dtype=torch.long)
        with Traffic() as traffic:
            WAYS[who](hidden, weight, bias, target, dtype).backward()
    return traffic


def ours(hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor, dtype: torch.dtype) -> Tensor:
    return losses.linear_cross_entropy(hidden, weight, bias, target, matmul_dtype=dtype, chunk=losses.GPU_CHUNK_TOKENS)


def stock(hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor, dtype: torch.dtype) -> Tensor:
    return F.cross_entropy(F.linear(hidden.to(dtype), weight.to(dtype), bias.to(dtype)).float(), target)


def torchs(hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor, dtype: torch.dtype) -> Tensor:
    return F.linear_cross_entropy(hidden.to(dtype), weight.to(dtype), target, linear_bias=bias.to(dtype))


WAYS: dict[str, Callable[..., Tensor]] = {"ours": ours, "stock": stock}
if hasattr(F, "linear_cross_entropy"):
    WAYS["torch's linear_cross_entropy"] = torchs
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=10_240, help="of a step (128 streams of 80)")
    parser.add_argument("--words", type=int, default=60_000)
    parser.add_argument("--features", type=int, default=400)
    args = parser.parse_args()
    print(f"one step of {args.tokens:,} tokens, {args.words:,} words; milliseconds are calculated from the bytes")
    for name, dtype in TYPES.items():
        for who in WAYS:
            traffic = count(who, args.tokens, args.words, args.features, dtype)
            total = sum(traffic.bytes.values())
            times = ", ".join(f"{gpu} {total / speed / 1e6:.0f} ms" for gpu, speed in GB_A_SECOND.items())
            print(f"{name} {who:29} {total / args.tokens / args.words:5.1f} bytes a logit in "
                  f"{traffic.kernels:3} kernels; {times}")


if __name__ == "__main__":
    main()
