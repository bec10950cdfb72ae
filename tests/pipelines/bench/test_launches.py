"""Floors from timed launches, between them and beyond."""

import pytest

from predecode.pipelines.bench.launches import LaunchTime, describe_launches, launch_floor

LAUNCHES = (LaunchTime(1000, (1e-6, 3e-6, 2e-6)), LaunchTime(2000, (4e-6,)), LaunchTime(10000, (8e-6, 8e-6)))
BANDWIDTH = 1e10  # bytes per second: 10 000 in a microsecond

FLOORS = [(0, 2e-6), (999, 2e-6), (1000, 2e-6), (1500, 3e-6), (2000, 4e-6), (4000, 5e-6), (10000, 8e-6), (30000, 10e-6)]


@pytest.mark.parametrize(("count", "seconds"), FLOORS)
def test_floors_follow_from_launches(count, seconds):
    assert launch_floor(LAUNCHES, count, BANDWIDTH) == pytest.approx(seconds)


def test_without_launches_there_is_no_floor():
    assert launch_floor((), 1000, BANDWIDTH) is None


def test_launches_in_words():
    assert describe_launches(LAUNCHES[:2]) == "1 kB in 2.00 µs, 2 kB in 4.00 µs"
    assert describe_launches(()) == ""
