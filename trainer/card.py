"""The model card, filled from measured figures and from nothing else.

python -m trainer.card --data fer2013.csv --out docs/MODEL_CARD.md resnet9 resnet9-s

The form follows M. Mitchell et al., "Model cards for model reporting", 2019.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from nodes.emotion.weights import Header, find_weights, load_weights
from nodes.preprocess import LABELS, Preprocess
from pipeline.errors import UserError
from trainer.checkpoint import write_whole
from trainer.dataset import FaceSet, load
from trainer.evaluate import Evaluation, evaluate
from trainer.prepare import pick_device
from trainer.through_detector import Found, find_faces


@dataclass(frozen=True)
class Entry:
    """One weights file on the card: its name, header, measured figures and size in bytes."""

    name: str
    header: Header
    evaluation: Evaluation
    size: int


_USE = """\
## What it does

The network looks at one cut-out face, 48 x 48 grey pixels, and gives seven probabilities:
{labels}.
It names the **expression that people would say they see** in the picture. It does not know what the
person feels: a smile may be politeness, a resting face may look angry. Nothing that matters to a person
should hang on it.

**Meant for**: art, games, interfaces that react to a face on purpose and with consent, teaching,
research on video pipelines, counting expressions in one's own recordings.

**Not for**: inferring emotions of people **at work or in schools and other places of education**, which
Article 5(1)(f) of the EU AI Act forbids except for medical or safety reasons; hiring, insurance, credit, policing,
border control, lie detection, diagnosis; identifying people; watching anybody who does not know of it. Other uses
may carry duties too (in the EU: telling the people concerned, Article 50(3); biometric data under the GDPR).
"""

_DATA = """\
## Data

FER2013 (I. Goodfellow et al., "Challenges in representation learning", 2013): 48 x 48 grey faces collected
by web searches for emotion words, released for research on Kaggle. Trained on its Training split (28,709
faces); everything was chosen, and the temperature fitted, on PublicTest (3,589 faces). So PublicTest figures
are those of a split that was looked at: read them, calibration above all, as slightly hopeful. PrivateTest
was never opened in training.

- The labels are noisy. Ten new raters (FER+) agree with them by majority on about 62 % of the faces; people
  reach 65 +- 5 % on this test. A few wrong answers below are right, and the other way round.
- About 1,850 pictures are exact copies of others, some with another label; 12 are blank.
- `disgust` has 436 training faces against 7,215 of `happy`. Its figures have wide intervals.
- Many pictures are posed, acted or from stock photographs; spontaneous expressions are weaker.
"""

_LIMITS = """\
## Not measured

- **Demographics.** FER2013 says nothing of age, gender, skin or origin, so no figure per group exists. Work
  on similar sets finds differences between groups; expect them here.
- Faces turned far to the side, covered, very small, badly lit or moving fast.
- Whether an expression goes with a feeling.
- Change over time: each frame is judged alone; smoothing is the node's work.
"""


def card(entries: list[Entry]) -> str:
    """The whole card as Markdown."""
    head = "# Model card: expression recognition of emograph\n"
    intro = (
        "\nA ResNet9 for 48 x 48 grey faces. The trainer wrote this page; every figure of the networks on it was "
        "measured on the file named.\n"
    )
    parts = [head + intro, _USE.format(labels=", ".join(LABELS)), *map(_section, entries), _DATA, _LIMITS]
    return "\n".join(parts)


def _section(entry: Entry) -> str:
    header, evaluation = entry.header, entry.evaluation
    recipe, metrics = header.recipe, header.metrics
    votes = " FER+ votes were an auxiliary target on Training rows (a second head, not in the file)."
    lines = [
        f"## `{entry.name}`",
        "",
        *([f"**{header.note}**", ""] if header.note else []),
        *([f"Recipe: {recipe['description']}.", ""] if recipe.get("description") else []),
        f"ResNet9, width {header.width}, {entry.size / 1e6:.1f} MB as fp16 safetensors.",
        f"Trained for {int(metrics.get('epochs', 0))} epochs; the last epoch's averaged weights, not the best's."
        + (votes if recipe.get("ferplus") else ""),
        f"Training rows left out: {', '.join(recipe.get('leave_out', [])) or 'none'}.",
        "",
        f"- Command: `{header.command}`",
        f"- Commit: `{header.git_commit or 'none'}`; data (sha256 of labels and pixels): `{header.data_hash[:16]}`",
        "",
        f"### Accuracy on {evaluation.split}, with 95 % intervals",
        "",
        "| views per face | accuracy | interval | macro F1 | NLL | ECE |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in evaluation.figures.items():
        lines.append(
            f"| {name} | {result.accuracy:.2%} | {_interval(result.interval)} | {result.macro_f1:.3f} "
            f"| {result.nll:.3f} | {result.ece:.3f} |"
        )
    plain = evaluation.figures["none"]
    lines += [
        "",
        "The `emotion` node runs one view (`none`), or with `mirror: true` two (`flip`).",
        "",
        "| class | faces | recall | interval |",
        "| --- | --- | --- | --- |",
    ]
    for i, name in enumerate(LABELS):
        lines.append(
            f"| {name} | {sum(plain.confusion[i])} | {plain.recall[name]:.1%} "
            f"| {_interval(plain.recall_interval[name])} |"
        )
    calibration = evaluation.calibration
    lines += [
        "",
        f"Calibration: dividing the logits by the temperature {calibration.temperature:.3f} (in the file, fitted on "
        f"PublicTest) takes the NLL from {calibration.nll_before:.3f} to {calibration.nll_after:.3f} and the "
        f"ECE from {calibration.ece_before:.3f} to {calibration.ece_after:.3f}.",
    ]
    if through := evaluation.through_detector:
        lines += [
            "",
            f"Through the detector (each face enlarged into a larger frame, found and cut by the `haardetect` node's "
            f"code): found {through.found_rate:.1%} of {through.count}; on those, {through.accuracy:.2%} "
            f"({_interval(through.interval)}) against {through.direct:.2%} directly.",
        ]
    return "\n".join(lines) + "\n"


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1%} - {interval[1]:.1%}"


def write_card(out: Path, weights: dict[str, str | Path], faces: FaceSet, split: str, device: str = "auto") -> None:
    """Measure weights, {name on the card: name or file}, on one split's faces, and write the card."""
    entries = []
    found: dict[Preprocess, Found] = {}
    for name, place in weights.items():
        net, header = load_weights(place)
        if header.preprocess not in found:
            found[header.preprocess] = find_faces(faces.images, header.preprocess)
        result = evaluate(net.to(pick_device(device)), header, faces, split, found=found[header.preprocess])
        entries.append(Entry(name, header, result, find_weights(place).stat().st_size))
    write_whole(out, card(entries).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", nargs="+", help="names or paths")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="PublicTest")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        faces = load(arguments.data, [arguments.split]).split(arguments.split)
        named = {find_weights(place).stem: place for place in arguments.weights}
        write_card(arguments.out, named, faces, arguments.split)
    except UserError as error:
        sys.exit(f"card: error: {error}")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
