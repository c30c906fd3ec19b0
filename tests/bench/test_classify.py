"""The worker behind `emograph bench classify`: one contestant, a moment each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.classify_worker import PEER
from bench.cli import bench
from pipeline.errors import UserError
from tests.support.graphs import ROOT
from tests.trainer.test_commands import call


@pytest.mark.parametrize("contestant", [PEER, "openvino"])
def test_a_contestant_reports_times_and_answers(contestant: str, tmp_path: Path):
    np.save(tmp_path / "faces.npy", np.random.default_rng(0).integers(0, 256, (3, 48, 48), np.uint8))
    job = {
        "contestant": contestant, "weights": "resnet9-s", "threads": 1, "device": "cpu", "sizes": [1, 9],
        "seconds": 0.01, "runs": 2, "faces": str(tmp_path / "faces.npy"), "answers": str(tmp_path / "answers.npy"),
    }  # fmt: skip
    command = [sys.executable, "-m", "bench.classify_worker"]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, cwd=ROOT, check=True)
    found = json.loads(done.stdout)
    assert [len(taken) >= 2 for taken in found["seconds"].values()] == [True, True]
    assert found["import s"] > 0 < found["open s"]
    assert 20 < found["memory MB"] < 20_000
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy").sum(axis=1), 1, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_gpu_benchmark_is_one_line():
    with pytest.raises(UserError, match="device is 'cuda', but torch finds no usable GPU"):
        call(bench, "classify", "--device", "cuda")
