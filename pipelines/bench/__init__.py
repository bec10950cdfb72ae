"""`predecode bench`: how long a layer takes where it runs, dispatch by dispatch, against the memory's speed."""

from predecode.pipelines.bench.measuring import bench
from predecode.pipelines.bench.report import BenchReport

__all__ = ["BenchReport", "bench"]
