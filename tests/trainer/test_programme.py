import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from nodes.emotion.weights import available, find_weights, load_weights, read_header
from nodes.preprocess import LABELS
from trainer import programme
from trainer.dataset import FaceSet
from trainer.ferplus import VOTES
from trainer.prepare import file_sha256


@pytest.fixture
def command(
    faces: FaceSet, write_csv: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """The trial programme on stripes, with votes that say what the labels say."""
    as_label = {"anger": "angry", "happiness": "happy", "sadness": "sad"}
    names = [as_label.get(name, name) for name in VOTES]
    table = pd.DataFrame(0, index=range(len(faces)), columns=["row", *VOTES])
    table["row"] = range(len(faces))
    for row, label in enumerate(faces.labels):
        table.loc[row, VOTES[names.index(LABELS[label])]] = 10
    table.to_csv(tmp_path / "ferplus.csv", index=False)
    inputs = ["--data", str(write_csv(faces)), "--ferplus", str(tmp_path / "ferplus.csv")]

    def call(*more: str) -> None:
        monkeypatch.setattr(
            "sys.argv", ["programme", *inputs, "--out", str(tmp_path / "out"), "--device", "cpu", "--trial", *more]
        )
        programme.main()

    return call


def test_the_whole_programme_stops_in_time_and_goes_on(command: Callable[..., None], tmp_path: Path) -> None:
    packaged = {name: find_weights(name).read_bytes() for name in available()}
    with pytest.raises(SystemExit) as stopped:
        command("--minutes", "0")
    assert stopped.value.code == programme.TO_BE_CONTINUED
    command()
    out = tmp_path / "out"
    for recipe in ("distil", "distil-s"):
        _, header = load_weights(out / recipe / "weights.safetensors")
        assert len(header.recipe["distill"]["teachers"]) == 2
    card = (out / "MODEL_CARD.md").read_text()
    assert "## `resnet9`" in card
    assert "## `resnet9-s`" in card
    assert {name: find_weights(name).read_bytes() for name in available()} == packaged


def test_the_programme_takes_changes_of_its_recipes_and_leaves_the_card_out(
    command: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("--no-card", "--seeds", "1", "epochs=2", "seed=3")
    command(*changes)
    out = tmp_path / "out"
    assert not (out / "MODEL_CARD.md").exists()
    assert [path.name for path in (out / "best").iterdir() if path.is_dir()] == ["seed-3"]
    assert read_header(out / "distil-s" / "weights.safetensors").recipe["epochs"] == 2
    assert "all done but the card" in capsys.readouterr().out

    command(*changes)
    assert "epoch" not in capsys.readouterr().out
    shutil.rmtree(out / "best" / "seed-3")
    command(*changes)
    assert capsys.readouterr().out.count("its teachers are others now, so it is trained anew") == 2
    for student in ("distil", "distil-s"):
        header = read_header(out / student / "weights.safetensors")
        assert header.teachers[0].sha256 == file_sha256(out / "best" / "seed-3" / "weights.safetensors")
