"""The flow beside plain NumPy, on one thread.

The rates compare with copying memory in two ways. A cell must at least be read once (4 bytes) and
its u and v be written (8 bytes): 12 bytes. The scheme reads two frames, and from the second frame
on the flow before, and writes u and v: 16 and 24 bytes, the throughput that stencils are usually
judged by. Memory that is written is fetched first, too; a large copy avoids that, and it is not
counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import dask
import numpy as np
import xarray as xr

from benchmarks.machine import Machine, Row, best, duration, times
from popdask.tracking._horn_schunck import iterate
from popdask.tracking.flow import optical_flow

LEAST = 12  # bytes of a cell
COLD, WARM = 16, 24  # bytes that are read and written for a cell of the first and of later frames


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Compare the compiled kernel, and the verb on chunks, at some numbers of iterations."""
    shape = (5, 90, 70) if quick else (5, 1796, 1105)
    people = np.random.default_rng(0).gamma(0.3, 300.0, shape).astype(np.float32)
    chunks = {"time": 1, "y": shape[1] // 2}
    years = np.datetime64("2000", "ns") + np.arange(len(people)) * np.timedelta64(365, "D")
    population = xr.DataArray(people, {"time": years}, ("time", "y", "x")).chunk(chunks).persist()
    for iterations in (1, 20):
        flow = optical_flow(population, iterations=iterations)
        expected = plain_numpy(people, iterations)
        found = flow.to_dataarray().values
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.ptp(expected))
        del found, expected
        peer = best(lambda n=iterations: plain_numpy(people, n), 1, warm=False)
        with dask.config.set(scheduler="sync"):
            ours = {
                "kernel": best(lambda n=iterations: array_kernel(people, n)),
                "chunks": best(flow.persist),
            }
        for name, spent in ours.items():
            least = people.size * LEAST / spent.cpu / machine.copy_rate
            moved = people[0].size * (COLD + WARM * (len(people) - 1))
            share = moved / spent.cpu / machine.copy_rate
            yield Row(
                f"flow, {iterations} iteration{'s' * (iterations > 1)}, {name}",
                " × ".join(map(str, (*shape[1:], shape[0]))),
                duration(spent.cpu),
                f"plain NumPy {duration(peer.cpu)}",
                times(peer.cpu / spent.cpu),
                f"{share:.0%} of the memory copy, {least:.0%} if every array moved once",
                "equal to 1e-5 of the range",
            )


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


def array_kernel(people: np.ndarray, iterations: int) -> np.ndarray:
    """Run the compiled kernel alone, whole frames after one another, without Dask."""
    centred = (-1, 1, -1, 1, 2.0)
    core = (0, people.shape[1], 0, people.shape[2])
    last, flow = len(people) - 1, None
    for t in range(len(people)):
        before, after = people[max(t - 1, 0)], people[min(t + 1, last)]
        flow = iterate(before, after, flow, centred, 10.0, iterations, core)
    return flow
