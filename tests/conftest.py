"""Shared fixtures: where real data is, if anywhere."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# A job in the background ignores Ctrl-C and hands that down: the commands under test must be able to hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_flush(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test survives a power cut, and thousands of flushes take a minute."""
    if "flush" not in request.node.name:
        monkeypatch.setattr("dpcdvae.files._flush_one", lambda path: None)
        monkeypatch.setattr("os.sync", lambda: None)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with ``perov_5/``, ``carbon_24/`` ... in CDVAE's CSV format; tests that need it skip without."""
    named = os.environ.get("DPCDVAE_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data: set DPCDVAE_DATA to a folder with perov_5/, carbon_24/, mp_20/")
    return folder
