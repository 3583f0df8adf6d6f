"""What this machine is, in a line."""

from __future__ import annotations

import platform
from pathlib import Path


def machine() -> str:
    """What decides how fast a backend is here: processor, its vector units, GPU."""
    name = platform.processor() or platform.machine()
    units = ""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
        lines = dict(line.split(":", 1) for line in facts.splitlines() if ":" in line)
        known = {key.strip(): value.strip() for key, value in lines.items()}
        name = known.get("model name", name)
        wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16")
        flags = known.get("flags", "").split()
        units = " ".join(flag for flag in wanted if flag in flags)
    except (OSError, ValueError):
        pass
    gpu = gpu_name()
    return ", ".join(part for part in (name, units, gpu) if part)


def gpu_name() -> str:
    """Name of the GPU that torch would use; empty where there is none."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else ""
