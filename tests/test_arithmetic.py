"""Torch is held still while something computes, and let go afterwards."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch

from popdask.blocks.torch import fixed_arithmetic


def flags() -> tuple[bool, ...]:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic


def test_threads_that_compute_at_once_leave_the_setting_as_it_was():
    before = torch.get_num_threads()
    both_inside = Barrier(2)

    def inside(_: int) -> int:
        with fixed_arithmetic():
            both_inside.wait(timeout=300)
            return torch.get_num_threads()

    try:
        torch.set_num_threads(2)
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(inside, range(2))) == [1, 1]
        with fixed_arithmetic():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_one_inside_another_returns_to_it():
    with fixed_arithmetic(2):
        with fixed_arithmetic(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2


def test_what_was_set_for_a_gpu_returns():
    before = flags()
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    try:
        here = flags()
        with fixed_arithmetic():
            assert flags() == (False, False, False, True)
        assert flags() == here
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:3]
