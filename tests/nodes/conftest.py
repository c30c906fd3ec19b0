"""What several tests of nodes need."""

from __future__ import annotations

import pytest

from nodes import receive as receive_module


@pytest.fixture
def impatient(monkeypatch):
    """Ask again sooner than on a real network."""
    monkeypatch.setattr(receive_module, "_ASK_AGAIN", 0.1)
    monkeypatch.setattr(receive_module, "_POLL_MS", 5)
