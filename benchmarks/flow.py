"""How fast the flow is: peers side by side in one process, on a grid of 1796 × 1105 × 5 cells.

Run it as ``python benchmarks/flow.py``. A cell must at least be read once (4 bytes) and its u and v
be written (8 bytes): at these 12 bytes per cell the rates compare with copying memory.
"""

import time
from collections.abc import Callable
from itertools import product

import dask
import numpy as np
import xarray as xr

from popdask.tracking._horn_schunck import iterate
from popdask.tracking.flow import optical_flow

SHAPE = (5, 1796, 1105)
CHUNKS = {"time": 1, "y": 898, "x": 1105}
BYTES_PER_CELL = 12


def plain_numpy(people: np.ndarray, iterations: int, alpha: float = 10.0) -> np.ndarray:
    """Run the centred scheme as one would write it first: shifted views of padded float32."""
    padded = np.pad(np.nan_to_num(people, nan=0.0), 1, mode="edge")
    times, rows, columns = people.shape

    def corner(k: int, j: int, i: int) -> np.ndarray:
        return padded[2 * k :, 2 * j :, 2 * i :][:times, :rows, :columns]

    corners = {at: corner(*at) for at in product((0, 1), repeat=3)}
    e_t, e_y, e_x = (
        sum((2 * at[axis] - 1) * values for at, values in corners.items()) / np.float32(8)
        for axis in range(3)
    )
    flow = np.zeros((2, *people.shape), np.float32)
    for t in range(times):
        if t > 0:
            flow[:, t] = flow[:, t - 1]
        for _ in range(iterations):
            around = np.pad(flow[:, t], ((0, 0), (1, 1), (1, 1)), mode="edge")
            beside = around[:, :-2, 1:-1] + around[:, 2:, 1:-1]
            beside += around[:, 1:-1, :-2] + around[:, 1:-1, 2:]
            corner_sum = around[:, :-2, :-2] + around[:, :-2, 2:]
            corner_sum += around[:, 2:, :-2] + around[:, 2:, 2:]
            u, v = beside / np.float32(6) + corner_sum / np.float32(12)
            miss = e_x[t] * u + e_y[t] * v + e_t[t]
            step = miss / (alpha**2 + e_x[t] ** 2 + e_y[t] ** 2)
            flow[0, t], flow[1, t] = u - e_x[t] * step, v - e_y[t] * step
    return flow


def seconds(work: Callable[[], object], repeats: int = 9) -> float:
    """Time the fastest of some runs, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def array_kernel(people: np.ndarray, iterations: int) -> np.ndarray:
    """Run the compiled kernel alone, whole frames after one another, without Dask."""
    centred = (-1, 1, -1, 1, 2.0)
    core = (0, people.shape[1], 0, people.shape[2])
    last, flow = len(people) - 1, None
    for t in range(len(people)):
        before, after = people[max(t - 1, 0)], people[min(t + 1, last)]
        flow = iterate(before, after, flow, centred, 10.0, iterations, core)
    return flow


def main() -> None:
    """Print the table."""
    people = np.random.default_rng(0).gamma(0.3, 300.0, SHAPE).astype(np.float32)
    target = people.copy()
    population = xr.DataArray(people, dims=("time", "y", "x")).chunk(CHUNKS).persist()
    copied = 2 * people.nbytes / seconds(lambda: np.copyto(target, people))
    copied_anew = 2 * people.nbytes / seconds(people.copy)
    print(f"memory copy, one thread: {copied / 1e9:.1f} GB/s read and written,")
    print(f"  {copied_anew / 1e9:.1f} GB/s into newly allocated memory")
    print(f"\n{'warm start':16}{'':22}{'seconds':>8}{'Mcells/s':>10}{'× NumPy':>9}{'of copy':>9}")
    for iterations in (1, 3, 20):
        flow = optical_flow(population, iterations=iterations)
        expected = plain_numpy(people, iterations)
        assert np.allclose(flow.to_dataarray(), expected, rtol=0, atol=1e-5 * np.ptp(expected))
        plain = seconds(lambda n=iterations: plain_numpy(people, n), repeats=2)
        kernel = seconds(lambda n=iterations: array_kernel(people, n))
        rows = [("plain NumPy", plain), ("array kernel, 1 thread", kernel)]
        for threads in (1, 2):
            with dask.config.set(scheduler="threads", num_workers=threads):
                rows.append((f"Dask, {threads} thread(s)", seconds(flow.persist)))
        for peer, taken in rows:
            rate = people.size / taken
            print(
                f"{iterations:3} iteration(s) {peer:22}{taken:8.3f}{rate / 1e6:10.0f}"
                f"{plain / taken:9.1f}{rate * BYTES_PER_CELL / copied:9.0%}"
            )


if __name__ == "__main__":
    main()
