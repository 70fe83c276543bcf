"""Stored results of the reference for movies, and what they were computed from."""

import pytest


@pytest.fixture(scope="session")
def stored(reference):
    return reference.load("movies")


@pytest.fixture(scope="session")
def inputs(reference):
    """A movie of images and one of volumes; simulating them takes seconds."""
    return [d["Y"] for d in reference.inputs("movies")]


@pytest.fixture(scope="session")
def recording(inputs):
    return inputs[0]
