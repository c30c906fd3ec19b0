"""What several tests of the engine need."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pipeline import ring
from tests.support.telling import Foreign


@pytest.fixture
def foreign():
    publisher = Foreign()
    yield publisher
    publisher.close()


@pytest.fixture
def fd() -> Iterator[int]:
    """The descriptor of a ring of frame slots that nobody has laid out yet."""
    descriptor = ring.create()
    yield descriptor
    os.close(descriptor)
