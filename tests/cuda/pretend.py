"""A pretend CUDA device: the arithmetic of the CPU under the rules and the costs of a device.

Every storage has a label, `cuda` or `cpu`. An operation that mixes them raises MixedDevicesError
where CUDA would refuse. Kernel launches are counted by the line of code that caused them, and so
are the times the host waits for the device: reading a number, copying from pageable memory,
operations whose result has a size that only the device knows.

It cannot show rounding on CUDA, races, memory, or how long anything takes.

    with PretendCuda() as device:
        model.to("cuda")
        device.reset()
        step()
        print(device.counts(), device.waits)

How counts are made:

- an operation counts as one launch, those in LAUNCHES as more; views and empty tensors as none;
- `torch.gru` stands for cuDNN: a call counts as one launch forwards and two backwards (gradients
  of the data, then of the weights), and as one copy for each weight where the weights do not lie in
  one buffer. The kernels within, about two per position, are launched by the library, not by torch;
- operations of the `textvae` namespace have a reference for CPUs, which runs here, and count as
  the one kernel they are on CUDA.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pretend_costs import (
    ACCUMULATED,
    CUDA_ONLY,
    FEW_INDICES,
    INDEXING,
    LAUNCHES,
    MASKED,
    NO_LAUNCH,
    PATCHES,
    WAITS,
    tensors_in,
)
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
ROOT = Path(__file__).parents[2]
SOURCES = (str(ROOT / "textvae"), str(ROOT / "scripts"))


class MixedDevicesError(RuntimeError):
    """An operation on tensors of different devices, or one that needs a tensor on the host."""


class Counts(NamedTuple):
    """What a piece of work costs the host."""

    launches: int
    waits: int


def label(tensor: Tensor) -> str:
    """`cuda`, `cpu` or `meta`."""
    with torch._C.DisableTorchFunction():
        if tensor.is_meta:
            return "meta"
        return getattr(tensor.untyped_storage(), "pretend", "cpu")


def mark(tensor: Tensor, name: str) -> Tensor:
    """Label the storage of a tensor."""
    with torch._C.DisableTorchFunction():
        if not tensor.is_meta:
            tensor.untyped_storage().pretend = name  # type: ignore[attr-defined]
    return tensor


def line_of_code() -> str:
    """The innermost line of the project that is being executed, such as `train/step.py:88`."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(SOURCES):
            parts = Path(path).relative_to(ROOT).parts
            return f"{'/'.join(parts[parts[0] == 'textvae' :])}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Torch as it is, without the pretend device."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


class PretendCuda:
    """A context in which there is one CUDA device."""

    def __init__(self) -> None:
        self.target: str | None = None
        """Label of what is being made, where a caller has named a device."""
        self.graph: PretendGraph | None = None
        """The graph that is being captured."""
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self.launches, self.waits, self.operations = Counter[str](), Counter[str](), Counter[str]()

    def counts(self) -> Counts:
        """Launches and waits since the last reset."""
        return Counts(self.launches.total(), self.waits.total())

    def launch(self, name: str, count: int = 1) -> None:
        """Count launches of an operation."""
        self.launches[line_of_code()] += count
        self.operations[name] += count

    def wait(self, reason: str) -> None:
        """Count a wait of the host for the device."""
        if self.graph is not None:
            self.refuse(f"{reason} while a graph is captured")
        self.waits[f"{line_of_code()}: {reason}"] += 1

    def refuse(self, reason: str) -> None:
        """Raise what CUDA would raise."""
        raise MixedDevicesError(f"{reason}, at {line_of_code()}")

    def __enter__(self) -> "PretendCuda":
        self._stack = contextlib.ExitStack()
        graphs = {
            "CUDAGraph": lambda: PretendGraph(self),
            "graph": lambda graph, pool=None: graph.capture(),
            "graph_pool_handle": lambda: (0, 0),
        }
        for name, value in (PATCHES | graphs).items():
            self._stack.callback(setattr, torch.cuda, name, getattr(torch.cuda, name))
            setattr(torch.cuda, name, value)
        self._stack.enter_context(_Functions(self))
        self._stack.enter_context(_Operations(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


class PretendGraph:
    """A CUDA graph: a list of the operations that were captured, which `replay` repeats.

    As on CUDA nothing is executed while it is captured, as far as what was there before can show;
    a number of the host is what it was when it was captured; and the host cannot wait meanwhile.
    """

    def __init__(self, device: PretendCuda) -> None:
        self.device, self.actions = device, list[Callable[[], None]]()
        self.new: set[int] = set()
        self.changed: dict[int, tuple[Tensor, Tensor]] = {}
        """Storages that were there before the capture and were written to, and their contents."""

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        self.device.graph = self
        try:
            yield
        finally:
            self.device.graph = None
        with plain(), torch.no_grad():
            for values, before in self.changed.values():
                values.copy_(before)

    def will_write(self, tensor: Tensor) -> None:
        """Note what is in a storage before it is written to."""
        with plain():
            storage = tensor.untyped_storage()
            address = storage.data_ptr()
            if address in self.new or address in self.changed:
                return
            size = storage.nbytes() // tensor.element_size()
            values = tensor.detach().as_strided((size,), (1,), 0)
            self.changed[address] = values, values.clone()

    def record(self, action: Callable[[], Any], outputs: list[Tensor]) -> None:
        """Note an operation and the tensors it has made."""
        with plain():
            targets = [output.detach() for output in outputs]
            self.new |= {target.untyped_storage().data_ptr() for target in targets}

        def repeat() -> None:
            for target, output in zip(targets, tensors_in(action()), strict=True):
                target.copy_(output.detach())

        self.actions.append(repeat)

    def replay(self) -> None:
        self.device.launch("graph")
        with plain(), torch.no_grad():
            for action in self.actions:
                action()


class _Operations(TorchDispatchMode):
    """Sees every operation below autograd, those of backward passes too."""

    def __init__(self, device: PretendCuda) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, device = dict(kwargs or {}), self.device
        space, name = func._schema.name.split("::")
        inputs = tensors_in([args, kwargs])
        labels = [label(tensor) for tensor in inputs]
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            kwargs["device"] = CPU
        if device.target is not None:
            result_label = device.target
        elif name in {"copy_", "_to_copy"}:
            result_label = labels[0]
        else:
            result_label = next((one for one in ("cuda", "meta") if one in labels), "cpu")
            if "cuda" in labels and "cpu" in labels:
                self._check_mixed(name, args, inputs, labels)
        if name == "copy_" and labels[0] != labels[1] and "meta" not in labels:
            self._copied(inputs[1], labels, args, kwargs)
        graph = self.device.graph
        if graph is not None:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                _note_writes(graph, argument, value)
            for argument in func._schema.arguments:
                _note_writes(graph, argument, kwargs.get(argument.name))
        if space == "textvae":
            with torch._C.DisableTorchFunction():  # its reference is no work of the host
                result = func(*args, **kwargs)
        else:
            result = CUDA_ONLY.get(str(func), func)(*args, **kwargs)
        if graph is not None and not _is_view(func):
            function = CUDA_ONLY.get(str(func), func)
            made = [t for t in tensors_in(result) if not any(t is one for one in inputs)]
            graph.record(lambda: [t for t in tensors_in(function(*args, **kwargs))
                                  if not any(t is one for one in inputs)], made)  # fmt: skip
        for output in tensors_in(result):
            if not (func._schema.is_mutable and any(output is one for one in inputs)):
                mark(output, result_label)
        if device.target is None and (result_label == "cuda" or "cuda" in labels):
            self._count(func, name, args, kwargs)
        return result

    def _check_mixed(
        self, name: str, args: tuple[Any, ...], inputs: list[Tensor], labels: list[str]
    ) -> None:
        """Refuse a mixture of devices; numbers in 0-dimensional tensors are passed by value."""
        if name in INDEXING:
            if labels[0] == "cpu":
                self.device.refuse(f"{name} of a CPU tensor by CUDA indices or values")
            if any(label(value) == "cpu" and value.dim() for value in tensors_in(args[2:])):
                self.device.refuse(f"{name} of CPU values into a CUDA tensor")
            if any(label(index) == "cpu" for index in tensors_in(args[1])):
                self.device.wait(f"{name} by an index on the CPU")
            return
        hosts = [tensor for tensor, one in zip(inputs, labels, strict=True) if one == "cpu"]
        if any(tensor.dim() for tensor in hosts) or name in {"mm", "addmm", "bmm", "gather"}:
            shapes = [(tuple(t.shape), one) for t, one in zip(inputs, labels, strict=True)]
            self.device.refuse(f"{name} of tensors on several devices: {shapes}")

    def _copied(self, source: Tensor, labels: list[str], args: Any, kwargs: Any) -> None:
        asynchronous = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
        _count_copy(self.device, source, labels[0], bool(asynchronous))

    def _count(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        device = self.device
        if name in INDEXING and any(
            t.dtype in (torch.bool, torch.uint8) for t in tensors_in(args[1])
        ):
            device.wait(f"{name} by a mask")
            device.launch(name, MASKED)
            return
        if name in WAITS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            device.wait(name)
        if _is_view(func) or name in NO_LAUNCH:
            return
        accumulates = name in INDEXING and (kwargs.get("accumulate") or (len(args) > 3 and args[3]))
        if name == "embedding_dense_backward" and args[1].numel() > FEW_INDICES:
            device.launch(name, 7)  # sorts the indices
            return
        device.launch(name, ACCUMULATED if accumulates else LAUNCHES.get(name, 1))


def _is_view(func: Any) -> bool:
    infos = [one.alias_info for one in func._schema.returns]
    return any(info is not None and not info.is_write for info in infos)


def _note_writes(graph: PretendGraph, argument: Any, value: object) -> None:
    if argument.alias_info is not None and argument.alias_info.is_write:
        for tensor in tensors_in(value):
            graph.will_write(tensor)


class _Functions(TorchFunctionMode):
    """Sees calls of torch's functions from Python, before they become operations."""

    def __init__(self, device: PretendCuda) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func in GETTERS:
            return GETTERS[func](label(args[0]))
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None:
            special = getattr(self, f"_{name.strip('_')}", None)
            if special is not None and (label(first) == "cuda" or name in MOVES):
                return special(func, first, args, kwargs)
        if kwargs.get("device") is not None and not isinstance(func, type):
            return self._made(func, name, args, kwargs)
        if kwargs.pop("pin_memory", None):
            return _pin(func(*args, **kwargs))
        return func(*args, **kwargs)

    def _made(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A tensor that is made on a named device."""
        device, kind = self.device, torch.device(kwargs["device"]).type
        if kind not in {"cuda", "cpu"}:
            return func(*args, **kwargs)
        kwargs["device"] = CPU
        with self._target(kind):
            result = func(*args, **kwargs)
        for output in tensors_in(result):
            mark(output, kind)
        if kind == "cuda" and name in {"tensor", "as_tensor"}:
            device.wait("torch.tensor copies from the host")
        elif kind == "cuda" and not name.startswith(("empty", "new_empty")):
            device.launch(name)
        return result

    @contextlib.contextmanager
    def _target(self, kind: str) -> Iterator[None]:
        before, self.device.target = self.device.target, kind
        try:
            yield
        finally:
            self.device.target = before

    def _move(self, tensor: Tensor, kind: str, dtype: Any, kwargs: dict[str, Any]) -> Tensor:
        if label(tensor) == kind:
            return tensor if dtype is None else tensor.to(dtype, **kwargs)
        asynchronous = bool(kwargs.pop("non_blocking", False))
        with self._target(kind):
            moved = tensor.clone() if dtype is None else tensor.to(dtype).clone()
        _count_copy(self.device, tensor, kind, asynchronous)
        return mark(moved, kind)

    # One method for each function that needs care, by its name without underscores.

    def _cpu(self, func: Any, first: Tensor, args: Any, kwargs: Any) -> Tensor:
        return self._move(first, "cpu", None, {})

    def _cuda(self, func: Any, first: Tensor, args: Any, kwargs: Any) -> Tensor:
        return self._move(first, "cuda", None, {})

    def _to(self, func: Any, first: Tensor, args: Any, kwargs: Any) -> Any:
        place, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        for value in args[1:]:
            if isinstance(value, Tensor):
                place, dtype = label(value), value.dtype
            elif isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, str | torch.device):
                place = value
        if place is None:
            return first if dtype is None else first.to(dtype, **kwargs)
        kind = torch.device(place).type
        if kind == "meta":
            return func(first, device=place, dtype=dtype, **kwargs)
        return self._move(first, kind, dtype, kwargs)

    def _pin_memory(self, func: Any, first: Tensor, args: Any, kwargs: Any) -> Tensor:
        return _pin(first.clone())

    def _new_tensor(self, func: Any, first: Tensor, args: Any, kwargs: Any) -> Tensor:
        self.device.wait("new_tensor copies from the host")
        return mark(func(*args, **kwargs), "cuda")

    def _tolist(self, func: Any, first: Tensor, args: Any, kwargs: Any) -> Any:
        self.device.wait("tolist")
        with torch._C.DisableTorchFunction():
            return first.tolist()

    def _numpy(self, func: Any, first: Tensor, args: Any, kwargs: Any) -> Any:
        return self.device.refuse("numpy() of a CUDA tensor")

    _array = _numpy

    def _data_ptr(self, func: Any, first: Tensor, args: Any, kwargs: Any) -> Any:
        return self.device.refuse("the address of a CUDA tensor")

    def _one_hot(self, func: Any, first: Tensor, args: Any, kwargs: Any) -> Tensor:
        with self._target("cuda"):
            result = func(*args, **kwargs)
        self.device.launch("one_hot", 2)
        return mark(result, "cuda")

    def _gru(self, func: Any, first: Tensor, args: Any, kwargs: Any) -> tuple[Tensor, ...]:
        inputs, initial, weights, *settings = args
        for value in (initial, *weights):
            if label(value) != "cuda":
                self.device.refuse("cuDNN with a tensor on the CPU")
        return _CuDNN.apply(self.device, settings, inputs, initial, *weights)


MOVES = {"cpu", "cuda", "to", "pin_memory"}
GETTERS: dict[Any, Callable[[str], Any]] = {
    torch.Tensor.device.__get__: {"cuda": CUDA, "cpu": CPU, "meta": torch.device("meta")}.get,
    torch.Tensor.is_cuda.__get__: "cuda".__eq__,
    torch.Tensor.is_cpu.__get__: "cpu".__eq__,
}


class _CuDNN(torch.autograd.Function):
    """`torch.gru` as one operation, with the gradient that torch has for it."""

    @staticmethod
    def forward(
        ctx: Any, device: PretendCuda, settings: Any, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.device = device
        device.launch("cudnn_rnn")
        if not _in_one_buffer(tensors[2:]):
            device.launch("cudnn_rnn copies weights", len(tensors) - 2)

        def run() -> list[Tensor]:
            with plain(), torch.enable_grad():
                ctx.leaves = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
                ctx.outputs = torch.gru(ctx.leaves[0], ctx.leaves[1], ctx.leaves[2:], *settings)
                return [output.detach() for output in ctx.outputs]

        outputs = run()
        if device.graph is not None:
            device.graph.record(run, outputs)
        return tuple(mark(output, "cuda") for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        device = ctx.device
        device.launch("cudnn_rnn_backward", 2)
        wanted = [leaf.requires_grad for leaf in ctx.leaves]

        def run() -> list[Tensor]:
            with plain(), torch.enable_grad():
                pairs = zip(ctx.outputs, gradients, strict=True)
                used = [(output, g) for output, g in pairs if g is not None]
                leaves = [leaf for leaf in ctx.leaves if leaf.requires_grad]
                outputs, incoming = zip(*used, strict=True)
                return list(torch.autograd.grad(outputs, leaves, incoming))

        computed = run()
        if device.graph is not None:
            device.graph.record(run, computed)
        values = iter(mark(value, "cuda") for value in computed)
        return None, None, *(next(values) if needed else None for needed in wanted)


def _in_one_buffer(weights: tuple[Tensor, ...]) -> bool:
    """Whether weights are views of one storage, one after the other."""
    storages = {weight.untyped_storage().data_ptr() for weight in weights}
    return len(storages) == 1 and all(weight.is_contiguous() for weight in weights)


def _pin(tensor: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        tensor.untyped_storage().pretend_pinned = True  # type: ignore[attr-defined]
    return tensor


def _count_copy(device: PretendCuda, source: Tensor, kind: str, asynchronous: bool) -> None:
    """A copy between host and device: a wait, unless asynchronous and of pinned memory."""
    with torch._C.DisableTorchFunction():
        pinned = getattr(source.untyped_storage(), "pretend_pinned", False)
    if kind == "cuda" and not (asynchronous and pinned):
        device.wait("copies from the host" + " (not pinned)" * asynchronous)
    elif kind == "cpu" and not asynchronous:
        device.wait("copies to the host")
