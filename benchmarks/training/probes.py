"""What the machine gives at this moment: products a second, memory a second, and who else works."""

import time
from dataclasses import dataclass

import psutil
import torch

PROBE_SECONDS = 0.3
SHAPES = ((2048, 640, 2048), (1024, 2048, 640), (256, 640, 262_144))
"""Rows, depth and columns: two of the layers of a small model, and its head."""
READ_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Probe:
    flops: float
    """Of the fastest shape, a second."""
    seconds: float
    """For a fixed piece of work, to tell whether the machine has changed."""


class Prober:
    """Its tensors are made once, for making them takes longer than the probe."""

    def __init__(self) -> None:
        dtype = torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
        self._pairs = [
            (torch.randn(rows, depth).to(dtype), torch.randn(depth, columns).to(dtype))
            for rows, depth, columns in SHAPES
        ]
        self._read = torch.zeros(READ_BYTES // 4)

    def products(self) -> Probe:
        """The fixed piece of work is a TFLOP of each shape."""
        rates: list[float] = []
        for left, right in self._pairs:
            flops = 2.0 * left.shape[0] * left.shape[1] * right.shape[1]
            torch.matmul(left, right)
            began, rounds = time.perf_counter(), 0
            while time.perf_counter() - began < PROBE_SECONDS:
                torch.matmul(left, right)
                rounds += 1
            rates.append(flops * rounds / (time.perf_counter() - began))
        return Probe(max(rates), sum(1e12 / rate for rate in rates))

    def read_rate(self) -> float:
        """Bytes a second."""
        self._read.sum()
        began = time.perf_counter()
        self._read.sum()
        return READ_BYTES / (time.perf_counter() - began)


class Others:
    """Processor seconds that went to anybody but the process that was measured."""

    def __init__(self) -> None:
        self._busy = _busy()
        self._began = time.perf_counter()

    def load_beside(self, cpu_seconds: float) -> float:
        """Cores that others kept busy since this was made."""
        spent = time.perf_counter() - self._began
        return max(0.0, _busy() - self._busy - cpu_seconds) / spent


def _busy() -> float:
    times = psutil.cpu_times()
    return times.user + times.system + times.nice
