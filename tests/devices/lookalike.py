"""A cuda or mps device that computes on the CPU, with real numbers, and refuses what a real one would. See README.md.

    import lookalike                       # before torch: it must hook in before torch asks which devices there are
    with lookalike.Lookalike() as device:  # KIND is the environment's LOOKALIKE, 'cuda' or 'mps'
        ...                                # any code with device='cuda'
    device.waits                           # where the program waited for the device, and how often
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

KIND = os.environ.get("LOOKALIKE", "cuda")
SOURCE = Path(__file__).with_name("guard.cpp")
MADE_FOR = "2.13"
"""The torch whose inside guard.cpp is written for: another may have renamed it."""


def cannot() -> str | None:
    """Why there can be no look-alike here; None where there can."""
    found = importlib.metadata.version("torch")
    if not found.startswith(MADE_FOR):
        return f"the look-alike is made for torch {MADE_FOR}, found {found}"
    if sys.platform != "linux":
        return "the look-alike is made for Linux"
    return None if shutil.which("g++") else "the look-alike needs g++"


def library() -> Path:
    """guard.cpp, compiled once for this torch (half a minute)."""
    torch = Path(importlib.util.find_spec("torch").origin).parent
    key = hashlib.sha256(SOURCE.read_bytes() + str((torch, importlib.metadata.version("torch"))).encode()).hexdigest()
    place = Path(tempfile.gettempdir()) / f"ulmfit-lookalike-{os.getuid()}" / f"guard-{key[:12]}.so"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        made = place.with_name(f"{place.stem}-{os.getpid()}.so")
        subprocess.run(["g++", "-O0", "-shared", "-fPIC", "-std=c++20", str(SOURCE), f"-I{torch}/include",
                        f"-L{torch}/lib", "-lc10", "-ltorch_cpu", "-o", str(made)], check=True)
        made.replace(place)  # whole or not at all, should two processes make it at once
    return place


def _hook_in() -> ctypes.CDLL:
    """Load guard.cpp and what it is linked with, and say that the device is there."""
    assert "torch" not in sys.modules, "import lookalike before torch"
    libraries = Path(importlib.util.find_spec("torch").origin).parent / "lib"
    for name in ("libgomp", "libc10.so", "libtorch_cpu.so"):
        for path in sorted(libraries.glob(f"{name}*")):
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    hooked = ctypes.CDLL(str(library()), ctypes.RTLD_GLOBAL)
    hooked.lookalike_hooks(KIND.encode())
    return hooked


if __name__ == "__main__":  # a test compiles it before its children need it
    sys.exit(cannot() or (library(), None)[1])

GUARDS = _hook_in()
import torch  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402
from torch.utils._python_dispatch import (  # noqa: E402
    TorchDispatchMode,
    _disable_current_modes,
    return_and_correct_aliasing,
)

NOW: Lookalike | None = None
"""The device that is at work."""

COPIES = {"aten::copy_", "aten::_to_copy"}
TAKE_CPU_NUMBERS = {"aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_",
                    "aten::_unsafe_index.Tensor"}
"""Ops that a GPU does with positions that lie on the CPU."""
ASK_BY_MASK = {"aten::index.Tensor", "aten::index_put_", "aten::masked_select"}
"""Ops that must know how many positions of a mask are true, if they are given one."""

CAST_ON_THE_WAY = {"aten::_softmax", "aten::_log_softmax"}
"""Kernels that read halves and write floats on a GPU only."""


class OnDevice(torch.Tensor):
    """A tensor that says it lies on the device; `numbers` is the CPU tensor that holds them."""

    @staticmethod
    def __new__(cls, numbers: torch.Tensor, requires_grad: bool = False) -> OnDevice:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, numbers.size(), strides=numbers.stride(), storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype, layout=numbers.layout, device=NOW.device, requires_grad=requires_grad)
        tensor.numbers = numbers
        return tensor

    def __tensor_flatten__(self):
        return ["numbers"], None

    @staticmethod
    def __tensor_unflatten__(parts, meta, size, stride):
        return OnDevice(parts["numbers"])

    def __repr__(self, **_):
        return f"OnDevice({self.numbers!r})"

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return NOW.run(op, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


class _Every(TorchDispatchMode):
    """Sees every op, those without a tensor of the device too: they may make one."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        return NOW.run(op, args, kwargs or {})


def _line() -> str:
    """Which line of ours, or else of fastai, is running."""
    for folder in ("ulmfit_fastai/", "/fastai/"):
        for frame in reversed(traceback.extract_stack()):
            if folder in frame.filename:
                return f"{frame.filename.rsplit(folder, 1)[-1]}:{frame.lineno}"
    return "?"


def _moment() -> str:
    """Whether a training step is at work: not a checkpoint, its taking up, or the look for NaN of some steps only."""
    stack = traceback.extract_stack()
    running = {frame.name for frame in stack}
    if "one_batch" not in running or running & {"_write", "_restore", "_stop_on_nan"}:
        return ""
    scaled = any(frame.filename.endswith("grad_scaler.py") for frame in stack)
    return " in a step, for torch's scaled loss" if scaled else " in a step"


class Lookalike:
    """The device, while it is at work as a context.

    Args:
        number: of the device, as in cuda:1.
        bf16: it multiplies bf16, as GPUs since 2020 do.
        bf16_lstm: its cuDNN has LSTMs in bf16.

    Attributes:
        waits: 'what line' -> how often the program waited for the device there.
    """

    def __init__(self, *, number: int = 0, bf16: bool = True, bf16_lstm: bool = False) -> None:
        self.kind, self.bf16, self.bf16_lstm = KIND, bf16, bf16_lstm
        self.device = torch.device(KIND, number)
        self.waits: Counter[str] = Counter()

    def wait(self, what: str) -> None:
        self.waits[f"{what} {_line()}{_moment()}"] += 1

    # An op

    def run(self, op, args, kwargs):
        """Do on the CPU what the device would do; refuse what it would refuse; count what it would be waited for."""
        name = op.name()
        if name.startswith(("aten::pin_memory", "aten::_pin_memory")):
            return args[0].clone()
        if name.startswith("aten::is_pinned"):
            return False
        flat, spec = pytree.tree_flatten((args, kwargs))
        ours = [one for one in flat if isinstance(one, OnDevice)]
        others = [one for one in flat if isinstance(one, torch.Tensor) and not isinstance(one, OnDevice)]
        self._refuse_two_devices(name, args, ours, others)
        self._count_waits(name, args, ours, others)
        numbers = [one.numbers if isinstance(one, OnDevice) else one for one in flat]
        args_, kwargs_ = pytree.tree_unflatten(numbers, spec)
        target = kwargs_.get("device")
        to_us = bool(ours) if target is None else torch.device(target).type == self.kind
        if target is not None:
            kwargs_ = {**kwargs_, "device": torch.device("cpu")}
            if name == "aten::_to_copy" and ours and not to_us:
                self.wait("to the CPU")
        if "pin_memory" in kwargs_:
            kwargs_ = {**kwargs_, "pin_memory": False}
        if name in CAST_ON_THE_WAY and args_[2]:
            args_ = (args_[0].float(), args_[1], False)
        out = op(*args_, **kwargs_)
        if not to_us:
            return out
        self._refuse_float64(name, out)
        wrapped = pytree.tree_map(
            lambda one: OnDevice(one.detach() if one.requires_grad else one) if isinstance(one, torch.Tensor) else one,
            out)
        return return_and_correct_aliasing(op, args, kwargs, wrapped) if ours else wrapped

    def _refuse_two_devices(self, name, args, ours, others) -> None:
        if not ours or not any(one.dim() for one in others) or name in COPIES:
            return
        if name in TAKE_CPU_NUMBERS and isinstance(args[0], OnDevice) and \
                not any(one.dim() and one.is_floating_point() for one in others):
            return
        raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two devices, "
                           f"{self.device} and cpu! ({name}; {_line()})")

    def _refuse_float64(self, name, out) -> None:
        if self.kind == "mps" and any(isinstance(one, torch.Tensor) and one.dtype == torch.float64
                                      for one in pytree.tree_leaves(out)):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support "
                            f"float64. Please use float32 instead. ({name}; {_line()})")

    def _count_waits(self, name, args, ours, others) -> None:
        if not ours:
            return
        if name == "aten::_local_scalar_dense":
            self.wait("a number of")
        elif name.startswith("aten::nonzero"):
            self.wait("nonzero")
        elif name == "aten::copy_" and others and isinstance(args[1], OnDevice):
            self.wait("copied to the CPU")
        elif name in ASK_BY_MASK and any(isinstance(one, torch.Tensor) and one.dtype == torch.bool
                                         for one in pytree.tree_leaves(args[1])):
            self.wait("mask")

    # cuDNN's LSTM

    def lstm(self, x, state, weights, has_biases, num_layers, dropout, train, bidirectional, batch_first):
        """As torch calls it: fp16 under any autocast (AutocastRNN.cpp), one type, gradients in training mode only."""
        if not isinstance(x, OnDevice):
            return self.real_lstm(x, state, weights, has_biases, num_layers, dropout, train, bidirectional, batch_first)
        tensors = [x, *state, *weights]
        if self.kind == "cuda" and torch.is_autocast_enabled("cuda"):
            tensors = [one.to(torch.float16) for one in tensors]
        if not all(isinstance(one, OnDevice) for one in tensors):
            raise RuntimeError(f"Input and hidden/weight tensors are not at the same device (lstm; {_line()})")
        types = {one.dtype for one in tensors}
        if len(types) > 1:
            raise RuntimeError(f"Input, hidden and parameter tensors are not the same dtype, found {types} ({_line()})")
        if types == {torch.bfloat16} and not self.bf16_lstm:
            raise RuntimeError(f"cuDNN error: no LSTM in bf16 ({_line()})")
        return _Lstm.apply(train, batch_first, *tensors)

    # At work

    def __enter__(self) -> Lookalike:
        global NOW
        NOW = self
        GUARDS.lookalike_guards()
        self.real_lstm, self.undo = torch.lstm, ExitStack()
        self._put(torch, lstm=self.lstm)
        self._put(torch._VF, lstm=self.lstm)
        self._put_device_functions()
        self._put_tensor_methods()
        self._put_files()
        self._put_module_move()
        torch._C._set_only_lift_cpu_tensors(True)
        self.undo.callback(torch._C._set_only_lift_cpu_tensors, False)
        self.undo.enter_context(_Every())
        return self

    def __exit__(self, *error: object) -> None:
        self.undo.__exit__(*error)

    def _put(self, place, **functions: Callable) -> None:
        for name, function in functions.items():
            self.undo.callback(setattr, place, name, getattr(place, name))
            setattr(place, name, function)

    def _put_device_functions(self) -> None:
        random = {"get_rng_state": lambda *_: torch.get_rng_state(),
                  "set_rng_state": lambda state, *_: torch.set_rng_state(state), "synchronize": lambda *_: None}
        if self.kind == "mps":
            self._put(torch.backends.mps, is_available=lambda: True, is_built=lambda: True)
            self._put(torch.mps, **random)
            return
        capability = (9, 0) if self.bf16 else (7, 5)
        properties = SimpleNamespace(total_memory=15 * 2**30, name="Lookalike", major=capability[0],
                                     minor=capability[1])
        self._put(
            torch.cuda, **random, is_available=lambda: True, is_initialized=lambda: True, _lazy_init=lambda: None,
            current_device=lambda: 0, device_count=lambda: 2, empty_cache=lambda: None,
            manual_seed_all=lambda seed: None,
            max_memory_allocated=lambda *_: 0, get_device_name=lambda *_: "Lookalike",
            get_device_properties=lambda *_: properties, get_device_capability=lambda *_: capability,
            is_bf16_supported=lambda including_emulation=True: self.bf16 or including_emulation)

    def _put_tensor_methods(self) -> None:
        real_to, real_as = torch.Tensor.to, torch.Tensor.as_subclass

        def numbered(device):
            """`.to("cuda")` would ask the real guard which GPU that is."""
            is_ours = isinstance(device, (str, torch.device)) and torch.device(device).type == self.kind
            return self.device if is_ours and torch.device(device).index is None else device

        def to(tensor, *args, **kwargs):
            return real_to(tensor, *map(numbered, args), **{k: numbered(v) if k == "device" else v
                                                            for k, v in kwargs.items()})

        self._put(torch.Tensor, to=to, pin_memory=lambda tensor, *_, **__: tensor.clone(),
                  as_subclass=lambda tensor, kind: tensor if isinstance(tensor, OnDevice) else real_as(tensor, kind))

    def _put_module_move(self) -> None:
        """`module.to(device)` swaps its parameters for new ones: torch would put new numbers into the old tensors."""
        real = torch.nn.Module._apply
        swaps = torch.__future__.set_swap_module_params_on_conversion

        def apply(module, function, recurse=True):
            held = [*module.parameters(), *module.buffers()]
            if held and all(function(one) is one for one in held):  # they are there already: a graph may hold them
                return module
            swaps(True)
            try:
                return real(module, function, recurse)
            finally:
                swaps(False)

        self._put(torch.nn.Module, _apply=apply)

    def _put_files(self) -> None:
        """Files hold the numbers, and are read back to the device that is asked for."""
        real_save, real_load = torch.save, torch.load

        def save(what, *args, **kwargs):
            with _disable_current_modes():
                return real_save(pytree.tree_map(lambda one: one.numbers if isinstance(one, OnDevice) else one, what),
                                 *args, **kwargs)

        def load(file, map_location=None, **kwargs):
            found = real_load(file, map_location="cpu", **kwargs)
            if isinstance(map_location, (str, torch.device)) and torch.device(map_location).type == self.kind:
                return pytree.tree_map(lambda one: one.to(self.device) if isinstance(one, torch.Tensor) else one, found)
            return found

        self._put(torch, save=save, load=load)


class _Lstm(torch.autograd.Function):
    """One layer of cuDNN's LSTM: computed in fp32, given back in the type of its input."""

    @staticmethod
    def forward(ctx, train, batch_first, x, h, c, *weights):
        ctx.train, ctx.batch_first, ctx.needs = train, batch_first, ctx.needs_input_grad[2:]
        ctx.save_for_backward(x, h, c, *weights)
        with _disable_current_modes():
            made = _compute([one.numbers for one in (x, h, c, *weights)], batch_first)
            return tuple(OnDevice(one.to(x.dtype)) for one in made)

    @staticmethod
    def backward(ctx, *slopes):
        if not ctx.train:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        given = ctx.saved_tensors
        with _disable_current_modes(), torch.enable_grad():
            inputs = [one.numbers.detach().float().requires_grad_() for one in given]
            pairs = [(out, slope.numbers.float()) for out, slope in zip(_compute(inputs, ctx.batch_first), slopes)
                     if slope is not None]
            found = torch.autograd.grad([out for out, _ in pairs], inputs, [slope for _, slope in pairs],
                                        allow_unused=True)
            dtype = given[0].dtype
            return None, None, *[OnDevice(one.to(dtype)) if one is not None and need else None
                                 for one, need in zip(found, ctx.needs)]


def _compute(tensors, batch_first):
    x, h, c, *weights = (one.float() for one in tensors)
    return torch._C._VariableFunctions.lstm(x, (h, c), weights, True, 1, 0.0, True, False, batch_first)
