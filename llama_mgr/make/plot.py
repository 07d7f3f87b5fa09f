"""The picture of measurements: size against loss, speed as colour. The door of matplotlib."""

from collections.abc import Sequence
from pathlib import Path

from llama_mgr.errors import BadInputError
from llama_mgr.make.ledger import Evaluation
from llama_mgr.make.pareto import front, loss_of
from llama_mgr.store import write_bytes
from llama_mgr.text import printable

SUFFIXES = (".png", ".svg", ".pdf")


def require_plot_name(file: Path) -> None:
    """Refuse a file name that no picture can have.

    Raises:
        BadInputError: it ends with none of the known suffixes.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise BadInputError("cannot plot to", file, f"the name must end with {', '.join(SUFFIXES)}")


def plot(entries: Sequence[Evaluation], title: str, file: Path) -> None:
    """Draw `entries` that have a size and a loss; the front of those that no other beats is a line.

    On disk afterwards: the whole picture, or, after an error, nothing new.

    Raises:
        BadInputError: the name has no suffix of a picture, or nothing of it was measured.
        StorageError: the disk is full or failing.
    """
    require_plot_name(file)
    shown = [one for one in entries if loss_of(one) is not None]
    if not shown:
        raise BadInputError("cannot plot", title, "neither divergence nor perplexity was measured of anything")
    write_bytes(file, _picture(shown, printable(title), file.suffix.lower().lstrip(".")), 0o644)


def _picture(shown: Sequence[Evaluation], title: str, form: str) -> bytes:
    import io  # noqa: PLC0415

    import matplotlib as mpl  # noqa: PLC0415 (heavy; this is its door)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    with mpl.rc_context({"svg.hashsalt": "llama-mgr", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
        _draw(figure, axes, shown)
        axes.set_title(title, parse_math=False)
        content = io.BytesIO()
        figure.savefig(content, format=form, dpi=140, metadata={"Date": None} if form == "svg" else None)
        plt.close(figure)
    return content.getvalue()


def _draw(figure: "object", axes: "object", shown: Sequence[Evaluation]) -> None:
    from typing import Any, cast  # noqa: PLC0415

    picture, pane = cast("Any", figure), cast("Any", axes)
    is_small = max(one.size_bytes for one in shown) < 1024**3
    sizes = [one.size_bytes / 1024 ** (2 if is_small else 3) for one in shown]
    losses = [float(loss_of(one) or 0.0) for one in shown]
    speeds = [one.generation_tokens_per_s for one in shown]
    line = sorted(front(shown), key=lambda place: sizes[place])
    pane.plot([sizes[place] for place in line], [losses[place] for place in line], color="0.7", zorder=1)
    if all(speed is not None for speed in speeds):
        points = pane.scatter(sizes, losses, c=speeds, cmap="viridis", s=60, edgecolors="black", zorder=2)
        picture.colorbar(points, ax=pane, label="generation, tokens/s")
    else:
        pane.scatter(sizes, losses, s=60, edgecolors="black", zorder=2)
    for one, size, loss in zip(shown, sizes, losses, strict=True):
        pane.annotate(one.quant, (size, loss), textcoords="offset points", xytext=(6, 6))
    has_divergence = all(one.kld is not None for one in shown)
    if has_divergence and max(losses) > 0:
        pane.set_yscale("symlog", linthresh=min(loss for loss in losses if loss > 0))
    pane.set_xlabel("size, MiB" if is_small else "size, GiB")
    pane.margins(x=0.1, y=0.1)
    pane.set_ylabel("mean KL divergence, nats" if has_divergence else "perplexity")
    pane.grid(visible=True, alpha=0.3)
