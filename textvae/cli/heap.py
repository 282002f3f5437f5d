"""Memory that a step has freed stays with the process for the next step.

glibc gives the top of its heap back to the kernel as soon as a few tens of megabytes of it are
free, and a training step that frees its gradients and logits then pays for every page again.
"""

import ctypes
import os
import sys
from collections.abc import Mapping

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The parameters' numbers in glibc's malloc.h (mallopt(3))."""
KEPT = 1 << 30
"""Bytes of free memory that are kept at the top of the heap."""
MAPPED_ALONE = 32 << 20
"""Blocks above this are mapped by themselves and given back when freed. Kept as well, they lie
among the others: the peak of a step of 512 sentences of 80 tokens was 4.6 GB instead of 3.6."""
THE_USERS = (
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TOP_PAD_",
)


def keep_freed_memory(environment: Mapping[str, str] = os.environ, *, kept: int = KEPT) -> bool:
    """Let malloc keep up to `kept` bytes of what is freed; returns whether it does.

    It is a setting of the whole process, so the command line makes it and the library does not.
    Nothing is done where malloc is not glibc's, or not 64 bits wide, or the user has set it.
    """
    if any(name in environment for name in THE_USERS):
        return False
    if "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return False
    if os.name != "posix" or sys.maxsize < 2**32:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, MAPPED_ALONE)) and bool(mallopt(TRIM_THRESHOLD, kept))
