"""The kernel on disk: is it what the package brought?

In: the folder of a kernel. Out: its SHA-256, compared with the list beside it. Never: repairs it.
"""

import hashlib
from pathlib import Path

KERNELS = Path("/var/lib/qubes/vm-kernels")


class ImageError(Exception):
    """The kernel is missing or is not the one that was installed."""


def digest(kernel):
    """The SHA-256 of a kernel's vmlinuz in hex, which is the one in its SHA256SUMS.

    Raises ImageError when either is missing or they differ.
    """
    folder = KERNELS / kernel
    try:
        listed = (folder / "SHA256SUMS").read_text(encoding="ascii").split()
        found = hashlib.sha256((folder / "vmlinuz").read_bytes()).hexdigest()
    except OSError as missing:
        raise ImageError(f"{missing.filename}: {missing.strerror}") from missing
    if listed[:1] != [found]:
        raise ImageError(f"{folder}/vmlinuz has digest {found}, which is not that of the package: "
                         "install it anew (rpm -V tidegate)")
    return found


def newest():
    """The newest kernel `tidegate-VERSION` that is installed.

    Raises ImageError when there is none.
    """
    found = sorted((folder.name for folder in KERNELS.glob("tidegate-*")), key=version)
    if not found:
        raise ImageError(f"no tidegate-* in {KERNELS}: is the package installed?")
    return found[-1]


def version(kernel):
    """Numbers to compare versions by."""
    words = kernel.removeprefix("tidegate-").replace("-", ".").split(".")
    return [(int(word), "") if word.isdigit() else (0, word) for word in words]
