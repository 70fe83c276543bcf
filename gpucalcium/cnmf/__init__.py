"""Cells, traces and spikes from a movie by constrained non-negative matrix factorisation."""
