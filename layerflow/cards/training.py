"""A training as people look at it: curves, the best epoch, how fast it went."""

from pathlib import Path

from layerflow.cards.drawing import COLOURS, INK, new_figure, picture
from layerflow.cards.markdown import plain, table, write
from layerflow.records import DatasetRef, Epoch, TrainedRef
from layerflow.settings.training import TrainingConfig


def write_card(config: TrainingConfig, trained: TrainedRef, data: DatasetRef, folder: Path) -> None:
    """Write ``card.md``."""
    best, last = trained.history[trained.best_epoch - 1], trained.history[-1]
    seconds = sum(epoch.seconds for epoch in trained.history)
    images = data.counts["train"]
    early = " and stopped early" if trained.epochs < config.epochs else ""
    facts = {
        "images a second": f"{images * trained.epochs / seconds:,.0f} (validation and checkpoints included)",
        "epochs": f"{trained.epochs} of {config.epochs}",
        **({"head alone": f"epochs 1 to {trained.head_epochs}"} if trained.head_epochs else {}),
        "steps": f"{trained.steps:,} of {config.batch_size} images",
        "seconds": f"{seconds:,.2f}",
        "compiled": trained.compiled,
        "threads": ", then ".join(map(str, (*trained.threads_before, trained.threads))),
        "replicas": trained.replicas,
        "feed": trained.feed,
    }
    parts = [
        f"# Training: {plain(trained.model)} on {plain(data.name)}",
        f"Trained on {images:,} images for {trained.epochs} epochs{early}. Epoch {best.epoch} is the best by "
        f"{config.monitor}; its weights are kept.",
        _curves(trained),
        table(
            ("", "loss", "accuracy", "validation loss", "validation accuracy", *map(_title, best.model_extra or ())),
            [_row("best", best), *([_row("last", last)] if last != best else [])],
        ),
        "## Speed and set-up",
        table(("", "value"), facts.items()),
    ]
    write(folder, parts)


def _title(figure: str) -> str:
    """``val_f1_score`` as the head of a column."""
    return plain(f"validation {figure.removeprefix('val_').replace('_', ' ')}")


def _row(which: str, epoch: Epoch) -> tuple[str, ...]:
    figures = (epoch.loss, epoch.accuracy, epoch.val_loss, epoch.val_accuracy, *(epoch.model_extra or {}).values())
    return (f"{which}, epoch {epoch.epoch}", *(f"{figure:.4f}" for figure in figures))


def _curves(trained: TrainedRef) -> str:
    figure, axes = new_figure(8, 2.8, columns=2)
    epochs = [epoch.epoch for epoch in trained.history]
    for axis, kind in zip(axes, ("loss", "accuracy"), strict=True):
        for split, field in (("train", kind), ("validation", f"val_{kind}")):
            values = [getattr(epoch, field) for epoch in trained.history]
            axis.plot(epochs, values, color=COLOURS[split], label=split, marker="." if len(epochs) < 20 else "")
        axis.axvline(trained.best_epoch, color=INK, linestyle=":", label=f"best: epoch {trained.best_epoch}")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlabel("epoch", color=INK, fontsize=8)
        axis.set_title(kind, color=INK, fontsize=9)
    axes[1].legend(fontsize=8, labelcolor=INK, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return picture(
        figure,
        f"Curves: loss and accuracy of {trained.epochs} epochs, train and validation; {trained.best_epoch} is best",
    )
