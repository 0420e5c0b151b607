"""What every benchmark needs: interleaved timing, a description of the machine, tables, JSON."""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
import transformers

PROPORTIONS = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15)


def parse(
    description: str,
    argv: Sequence[str] | None,
    *,
    threads: int = 1,
    with_device: bool = False,
    names: Collection[str] = (),
) -> argparse.Namespace:
    """The flags `--quick --json FILE --threads N`; sets torch's number of threads.

    `with_device` adds what the GPU kit (`gpu.py`) needs: `--device`, which is `cpu` or `cuda` in
    what is returned, and `--smallest`, which is `--quick`, too. `names` adds `--only`: some of
    these names.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the numbers")
    parser.add_argument(
        "--threads", type=int, default=threads, help="torch's threads (default here: %(default)s)"
    )
    if with_device:
        found = "cuda" if torch.cuda.is_available() else "cpu"
        parser.add_argument(
            "--device", choices=("cpu", "cuda"), default=found, help="(default here: %(default)s)"
        )
        parser.add_argument(
            "--smallest", action="store_true", help="one round of next to nothing: does it run?"
        )
    if names:
        parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these alone")
    arguments = parser.parse_args(argv)
    for name in getattr(arguments, "only", ()):
        if name not in names:
            parser.error(f"--only {name}: expected one of {len(names)} names ({min(names)}, …)")
    if arguments.threads < 1:
        parser.error(f"--threads {arguments.threads}: expected at least 1")
    file = arguments.json
    if file and (file.is_dir() or not file.parent.is_dir()):
        parser.error(f"--json {arguments.json}: expected a file in a folder that is there")
    if with_device:
        if arguments.device == "cuda" and not torch.cuda.is_available():
            parser.error("--device cuda: torch finds no GPU here")
        arguments.quick |= arguments.smallest
    torch.set_num_threads(arguments.threads)
    return arguments


def interleaved(
    functions: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of every function in every round: one after the other, so that all share the weather.

    Every other round goes backwards, so that none profits from what another leaves in memory. Every
    function is called once before, unless the caller has done as much (`warm_up`). The clock waits
    for a GPU's work.
    """
    for function in functions.values() if warm_up else ():
        function()
    # What is there by now is not searched for garbage again and again.
    gc.freeze()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    for _ in range(rounds):
        for name in order:
            gc.collect()
            start = _now()
            functions[name]()
            seconds[name].append(_now() - start)
        order.reverse()
    gc.unfreeze()
    return seconds


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return median(a / b for a, b in zip(numerator, denominator, strict=True))


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The b of seconds ≈ a · sizes^b, fitted on a log-log scale; 1 is proportional growth."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns aligned to the right; floats with three significant digits."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def machine() -> dict[str, object]:
    """Versions and hardware that the numbers hold for."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "platform": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """The name that the processor gives itself."""
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return platform.processor()
    lines = information.read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def finish(
    arguments: argparse.Namespace, ratios: Mapping[str, float | None], details: object
) -> None:
    """Print the ratios; write them with the details and the machine where `--json` says."""
    print()
    for name, value in ratios.items():
        print(f"{name}: {'not measured' if value is None else f'{value:.3g}'}")
    if arguments.json:
        content = {"ratios": dict(ratios), "details": details, "machine": machine()}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")
