"""Clusters: the calls by which scripts start and stop workers."""

from gpucalcium.cluster.server import setup_cluster, start_server, stop_server

__all__ = ["setup_cluster", "start_server", "stop_server"]
