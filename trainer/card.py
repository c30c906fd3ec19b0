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
from trainer.commandline import location
from trainer.dataset import FaceSet, load
from trainer.evaluate import Evaluation, evaluate
from trainer.folders import FOLDER_OF, PRIVATE, PUBLIC, TRAINING
from trainer.prepare import pick_device
from trainer.through_detector import Found, find_faces

FER2013 = {TRAINING: 28_709, PUBLIC: 3589, PRIVATE: 3589}
"""Faces of each split."""
FER2013_DIGEST = "290d0eec4ca4bdea59c037a680fdd9e6165175fa85ca1d685d6467a57337ab78"
"""`FaceSet.digest` of its Training and PublicTest rows, as Kaggle's fer2013.csv has them."""

INIT_ACCURACY = "public_accuracy_of_init"
"""Figure in a header: the accuracy on PublicTest, one view, of the weights that training began with."""


@dataclass(frozen=True)
class Entry:
    """One weights file on the card: its name, header, measured figures and size in bytes."""

    name: str
    header: Header
    evaluation: Evaluation
    size: int

    @property
    def learnt_from_fer2013(self) -> bool:
        """Whether it was trained and chosen on all of FER2013, as the networks that ship were."""
        return self.header.data_hash == FER2013_DIGEST

    @property
    def on_fer2013(self) -> bool:
        """Whether it was measured on a split of FER2013, by their number; else on one's own pictures."""
        return self.evaluation.figures["none"].count == FER2013.get(self.evaluation.split)


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
by web searches for emotion words, released for research on Kaggle; its splits Training and PublicTest have 28,709
and 3,589 faces. Networks learn from Training rows alone; everything is chosen, and the temperature fitted, on
PublicTest. So PublicTest figures are those of a split that was looked at: read them, calibration above all, as
slightly hopeful. Training never opens PrivateTest.

- The labels are noisy. Ten new raters (FER+) agree with them by majority on about 62 % of the faces; people
  reach 65 +- 5 % on this test. A few wrong answers above are right, and the other way round.
- In the whole data set about 1,850 pictures are exact copies of others, some with another label; 12 are blank.
- `disgust` has 436 Training faces against 7,215 of `happy`. Its figures have wide intervals.
- Many pictures are posed, acted or from stock photographs; spontaneous expressions are weaker.
"""

_MEASURED_ELSEWHERE = """\
The figures above are of other faces: this page knows their number, nothing else. Whom they show, who named the
expressions, and whether a network has seen them decides what the figures are worth: say it here.
"""

_OWN_DATA = """\
## Data

Other pictures than Kaggle's fer2013.csv as a whole, row for row: this page knows their number and their hash, nothing
else. Whom they show, who named the expressions, and how those that it was measured on were kept apart decides what the
figures above are worth: say it here. The temperature was fitted on the faces kept for that, so the calibration on those
is hopeful.
"""

_LIMITS = """\
## Not measured

- **Demographics.** {who} of age, gender, skin or origin, so no figure per group exists. Work
  on similar sets finds differences between groups; expect them here.
- Faces turned far to the side, covered, very small, badly lit or moving fast.
- Whether an expression goes with a feeling.
- Change over time: each frame is judged alone; smoothing is the node's work.
"""

_OWN_LICENCE = """\
## Licence

Who made the pictures decides about weights that were learnt from them. FER2013, or a part of it, was released for
research, and its pictures belong to others; weights of emograph, where training began with some, were learnt from it.
Whoever uses them commercially should take advice.
"""

_LICENCE = """\
## Licence

The weights are under Apache-2.0, the licence of the project, as far as the project can grant it. They were learnt from
FER2013, which was released for research, and whose pictures belong to others: whoever uses the weights commercially
should take advice.
"""


def card(entries: list[Entry]) -> str:
    """The whole card as Markdown."""
    head = "# Model card: expression recognition of emograph\n"
    intro = (
        "\nA ResNet9 for 48 x 48 grey faces. The trainer wrote this page; every figure of the networks on it was "
        "measured on the file named.\n"
    )
    parts = [head + intro, _USE.format(labels=", ".join(LABELS)), *map(_section, entries)]
    ours = all(entry.learnt_from_fer2013 for entry in entries)
    here = all(entry.on_fer2013 for entry in entries)
    parts.append(_DATA if ours else _OWN_DATA)
    if ours and not here:
        parts.append(_MEASURED_ELSEWHERE)
    parts.append(_LIMITS.format(who="FER2013 says nothing" if ours and here else "Nothing is known here"))
    parts.append(_LICENCE if ours else _OWN_LICENCE)
    return "\n".join(parts)


def _section(entry: Entry) -> str:
    header, evaluation = entry.header, entry.evaluation
    faces = evaluation.figures["none"].count
    kept = f"{faces:,} face{'s' * (faces != 1)} of `{FOLDER_OF[evaluation.split]}`"
    measured_on = evaluation.split if entry.on_fer2013 else kept
    fitted_on = "PublicTest" if entry.learnt_from_fer2013 else "the faces kept for it"
    lines = [
        f"## `{entry.name}`",
        "",
        *([f"**{header.note}**", ""] if header.note else []),
        *([f"Recipe: {header.recipe['description']}.", ""] if header.recipe.get("description") else []),
        f"ResNet9, width {header.width}, {entry.size / 1e6:.1f} MB as fp16 safetensors.",
        *training_lines(header),
        "",
        f"- Command: `{header.command}`",
        f"- Commit: `{header.git_commit or 'none'}`; data (sha256 of labels and pixels): `{header.data_hash[:16]}`",
        "",
        f"### Accuracy on {measured_on}, with 95 % intervals",
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
    for i, (name, recall) in enumerate(plain.recall.items()):
        figures = "- | -" if recall is None else f"{recall:.1%} | {_interval(plain.recall_interval[name])}"
        lines.append(f"| {name} | {sum(plain.confusion[i])} | {figures} |")
    calibration = evaluation.calibration
    lines += [
        "",
        f"Calibration: dividing the logits by the temperature {calibration.temperature:.3f} (in the file, fitted on "
        f"{fitted_on}) takes the NLL from {calibration.nll_before:.3f} to "
        f"{calibration.nll_after:.3f} and the ECE from {calibration.ece_before:.3f} to {calibration.ece_after:.3f}.",
    ]
    through = evaluation.through_detector
    if through and through.accuracy is None:
        lines += ["", f"Through the detector: none of {through.count} faces was found."]
    elif through:
        lines += [
            "",
            f"Through the detector (each face enlarged into a larger frame, found and cut by the `haardetect` node's "
            f"code): found {through.found_rate:.1%} of {through.count}; on those, {through.accuracy:.2%} "
            f"({_interval(through.interval)}) against {through.direct:.2%} directly.",
        ]
    return "\n".join(lines) + "\n"


def training_lines(header: Header) -> list[str]:
    """How a network was trained, from its header alone; the recipe's own description is only its intention."""
    recipe, metrics = header.recipe, header.metrics
    kept = "averaged weights" if recipe.get("ema") else "weights"
    trained = f"Trained for {int(metrics.get('epochs', 0))} epochs; the last epoch's {kept}, not the best's."
    if recipe.get("ferplus"):
        trained += " FER+ votes were an auxiliary target on Training rows (a second head, not in the file)."
    left_out = f"Training rows left out: {', '.join(recipe.get('leave_out', [])) or 'none'}"
    if "training_faces" in metrics:
        left_out += f"; {int(metrics['training_faces']):,} faces were trained on"
    return [trained, *_init_line(header), *_teaching_line(header), left_out + "."]


def _init_line(header: Header) -> list[str]:
    if header.init is None:
        return []
    votes = ", which had learnt from FER+ votes on Training rows too" if header.init.votes else ""
    line = f"Training began with the weights {header.init.file} (sha256 {header.init.sha256[:12]}){votes}."
    before = header.metrics.get(INIT_ACCURACY)
    return [line + (f" They were right on {before:.2%} of PublicTest in one view." if before is not None else "")]


def _teaching_line(header: Header) -> list[str]:
    distill = header.recipe.get("distill")
    if not distill:
        return []
    count = len(distill["teachers"])
    widths = " or ".join(str(width) for width in sorted({teacher.width for teacher in header.teachers}))
    teachers = f"{count} network{'s' * (count > 1)}" + (f" of width {widths}" if widths else "")
    line = (
        f"Distilled from {teachers}: their mean answer, at temperature {distill['temperature']:g}, is "
        f"{distill['share']:.0%} of the loss, the labels are the rest."
    )
    voted = sum(teacher.votes for teacher in header.teachers)
    if voted:
        who = "The teachers" if voted == count else f"{voted} of the teachers"
        line += f" {who} learnt from FER+ votes on Training rows too."
    return [line]


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


def names_on_card(places: list[str]) -> dict[str, str | Path]:
    """{name on the card: packaged name or file}: a file's own name, or its folder's where that says more.

    All that the trainer writes is called weights.safetensors. UserError if two would have the same name.
    """
    files = [find_weights(place).resolve() for place in places]
    stems = [file.stem for file in files]
    named: dict[str, str | Path] = {}
    for place, file in zip(places, files, strict=True):
        telling = stems.count(file.stem) == 1 and file.stem != "weights"
        name = file.stem if telling else file.parent.name
        if name in named:
            raise UserError(
                f"{named[name]} and {place} would both be '{name}' on the card: rename a file or its folder"
            )
        named[name] = place
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", nargs="+", help="names or paths")
    parser.add_argument("--data", type=location, required=True)
    parser.add_argument("--split", default="PublicTest")
    parser.add_argument("--out", type=location, required=True)
    arguments = parser.parse_args()
    try:
        named = names_on_card(arguments.weights)
        faces = load(arguments.data, [arguments.split]).split(arguments.split)
        write_card(arguments.out, named, faces, arguments.split)
    except UserError as error:
        sys.exit(f"card: error: {error}")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
