"""Pictures of results, each returned as the bytes of a PNG file."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nodes.preprocess import LABELS
from trainer.dataset import FaceSet
from trainer.metrics import Figures, reliability, softmax


def curves_png(history: list[dict[str, float]]) -> bytes:
    """Loss, accuracy and learning rate over the epochs, from the rows of metrics.csv."""
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    loss.plot(epochs, [row["loss"] for row in history], label="training loss, all terms")
    loss.plot(epochs, [row["public_nll"] for row in history], label="PublicTest NLL")
    accuracy.plot(epochs, [row["accuracy"] for row in history], label="Training, augmented")
    accuracy.plot(epochs, [row["public_accuracy"] for row in history], label="PublicTest, averaged weights")
    rate.plot(epochs, [row["lr"] for row in history], label="learning rate")
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return _png(figure)


def confusion_png(result: Figures) -> bytes:
    """Counts, coloured by the share of each actual class."""
    counts = np.array(result.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(LABELS)), LABELS, rotation=45)
    axes.set_yticks(range(len(LABELS)), LABELS)
    axes.set_xlabel("read as")
    axes.set_ylabel("labelled")
    axes.set_title(f"accuracy {result.accuracy:.1%}")
    return _png(figure)


def reliability_png(logits: np.ndarray, labels: np.ndarray, temperature: float) -> bytes:
    """Accuracy over confidence, before and after the temperature; a calibrated network follows the diagonal."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for name, value in (("temperature 1", 1.0), (f"temperature {temperature:.2f}", temperature)):
        confidence, accuracy, share = reliability(softmax(logits, value), labels)
        filled = share > 0
        axes.plot(confidence[filled], accuracy[filled], marker="o", markersize=4, label=name)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.legend()
    return _png(figure)


def samples_png(faces: FaceSet, per_class: int = 12) -> bytes:
    """The first faces of each class, one class a row."""
    figure = Figure(figsize=(per_class * 0.8, len(LABELS) * 0.9), layout="constrained")
    for label, row in enumerate(figure.subplots(len(LABELS), per_class)):
        shown = faces.images[faces.labels == label][:per_class]
        for axes in row:
            axes.set_axis_off()
        for axes, image in zip(row, shown, strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        row[0].set_title(LABELS[label], fontsize=9, loc="left")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
