"""The processes of one run, as `torchrun` starts them: sums and messages between their ranks.

In a single process every function here does nothing, at no cost, so that callers need no test. In
a run of several processes, all of them must call the same functions in the same order. Tensors on a
CPU go through gloo, those on CUDA through nccl, or through gloo where processes share a device.
Messages are text; nothing is pickled.

A process that dies closes its connections, so that the others get a `RankError` at once. Only a
device that hangs waits for the timeout of nccl, or until torchrun ends the other processes.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from textvae.errors import ConfigError, RankError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

# A rank may wait for the first one to tokenize a large corpus; gloo reports a death at once.
_PATIENCE = timedelta(days=7)
_DEVICE_PATIENCE = timedelta(minutes=10)
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_groups: "dict[str, ProcessGroup]" = {}
"""By the type of device; empty outside `joined`."""


def started_together(environment: Mapping[str, str] = os.environ) -> bool:
    """True if a launcher such as torchrun has started this process with others."""
    return all(environment.get(name) for name in _VARIABLES) and environment["WORLD_SIZE"] != "1"


def is_first() -> bool:
    """True in the process that writes and prints, also before and after `joined`."""
    return not started_together() or os.environ["RANK"] == "0"


def size() -> int:
    """The number of processes of the run; 1 outside `joined`."""
    return int(os.environ["WORLD_SIZE"]) if _groups else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ["RANK"]) if _groups else 0


@contextmanager
def joined() -> Iterator[None]:
    """Connect to the processes that were started with this one, inside the block.

    Without a launcher, or within another `joined`, this does nothing.

    Raises:
        ConfigError: numbers from the launcher that make no sense.
        RankError: the others cannot be reached.
    """
    if not started_together() or _groups:
        yield
        return
    import torch  # noqa: PLC0415 -- costs 1.5 s, which a single process that does not compute need not pay
    from torch import distributed  # noqa: PLC0415 -- as above

    _check_environment()
    with _explained_losses("the other processes"):
        distributed.init_process_group("gloo", timeout=_PATIENCE)
        assert distributed.group.WORLD is not None
        _groups["cpu"] = distributed.group.WORLD
        if torch.cuda.is_available():
            local, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
            torch.cuda.set_device(local % devices)
            if int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])) > devices:
                _groups["cuda"] = _groups["cpu"]  # nccl refuses processes that share a device
            else:
                _groups["cuda"] = distributed.new_group(backend="nccl", timeout=_DEVICE_PATIENCE)
    try:
        yield
    except BaseException:
        _groups.clear()  # not taken down in order: the others may be anywhere
        raise
    try:
        barrier()
    finally:
        _groups.clear()
    distributed.destroy_process_group()


def all_reduce_sum(tensor: "Tensor") -> "Tensor":
    """Sum a tensor over the processes, in place: all of them have the same bits afterwards."""
    if _groups:
        from torch import distributed  # noqa: PLC0415 -- imported already

        with _explained_losses("its sum"):
            distributed.all_reduce(tensor, group=_groups[tensor.device.type])
    return tensor


def all_reduce_max(value: int) -> int:
    """Return the maximum of a number over the processes."""
    if not _groups:
        return value
    import torch  # noqa: PLC0415 -- imported already
    from torch import distributed  # noqa: PLC0415 -- imported already

    maximum = torch.tensor(value)
    with _explained_losses("its number"):
        distributed.all_reduce(maximum, distributed.ReduceOp.MAX, group=_groups["cpu"])
    return int(maximum)


def broadcast(text: str | None, *, source: int = 0) -> str:
    """Send the text of one process to all; those of the others are ignored."""
    if not _groups:
        assert text is not None
        return text
    import torch  # noqa: PLC0415 -- imported already
    from torch import distributed  # noqa: PLC0415 -- imported already

    mine = rank() == source
    data = bytearray((text or "").encode("utf-8", "surrogatepass")) if mine else bytearray()
    count = torch.tensor(len(data))
    with _explained_losses("its message"):
        distributed.broadcast(count, source, group=_groups["cpu"])
        if not int(count):
            return ""
        buffer = torch.empty(int(count), dtype=torch.uint8)
        if mine:
            buffer = torch.frombuffer(data, dtype=torch.uint8)
        distributed.broadcast(buffer, source, group=_groups["cpu"])
    return bytes(buffer.numpy()).decode("utf-8", "surrogatepass")


def all_gather(text: str) -> list[str]:
    """The texts of all processes, in the order of their ranks, at each of them."""
    return [broadcast(text, source=source) for source in range(size())]


def barrier() -> None:
    """Wait until all processes have reached this call."""
    all_reduce_max(0)


@contextmanager
def _explained_losses(what: str) -> Iterator[None]:
    """Turn the errors of the transport, RuntimeErrors of many texts, into one line."""
    try:
        yield
    except ConfigError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        raise RankError(
            f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}: another process of this "
            f"run has ended or cannot be reached, which left {what} unfinished; the same command "
            "resumes from the last saved state"
        ) from error


def _check_environment() -> None:
    number, count = os.environ["RANK"], os.environ["WORLD_SIZE"]
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ConfigError(
            f"RANK {number[:20]!r} of WORLD_SIZE {count[:20]!r}: no process has such a number; "
            "start with torchrun, or unset both"
        )
