"""What several tests of the engine need."""

from __future__ import annotations

import pytest

from tests.support.telling import Foreign


@pytest.fixture
def foreign():
    publisher = Foreign()
    yield publisher
    publisher.close()
