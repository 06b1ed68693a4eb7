"""Explaining a whole dataset, larger than memory, on one machine or a cluster (`explain_dataset`)."""

from .blocks import Block, Source
from .cluster import ClusterError
from .disk import DiskFullError
from .progress import Progress
from .reading import failures, open_store, pieces, to_parquet
from .run import DatasetRun, explain_dataset
from .source import open_source

__all__ = [
    "explain_dataset",
    "DatasetRun",
    "Progress",
    "open_store",
    "pieces",
    "failures",
    "to_parquet",
    "Block",
    "Source",
    "open_source",
    "ClusterError",
    "DiskFullError",
]
