"""A sweep as people look at it: how good the trials were, what mattered, and the settings of the best."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from layerflow.cards.drawing import COLOURS, INK, new_figure, picture
from layerflow.cards.markdown import as_code, plain, short, table
from layerflow.config import RetrainConfig
from layerflow.errors import mask
from layerflow.settings.training import is_maximized
from layerflow.sweeps.outcomes import Trial
from layerflow.sweeps.space import Space, configured

#: Rows of the table beyond which only the best are shown: a card must load.
_MOST_ROWS = 100


def draw(
    config: RetrainConfig, space: Space, trials: Sequence[Trial], winner: Trial, importances: Mapping[str, float]
) -> str:
    """The card, Markdown."""
    monitor = config.training.monitor
    counts = Counter(trial.state for trial in trials)
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    settings = configured(config, winner.settings).model_dump(mode="json", exclude_defaults=True)
    parts = [
        f"# Sweep: {plain(config.registry_name)}",
        f"{len(trials)} trials: {said}. The best by {monitor} is trial {winner.number}: **{winner.value:.4f}**. "
        "No trial saw a test image.",
        _progress(monitor, trials, winner),
        _importances(importances),
        "## Curves",
        _curves(monitor, trials, winner),
        "## Trials",
        _table(monitor, space, trials),
        "## Settings of the best trial",
        f"```yaml\n{yaml.safe_dump(settings, sort_keys=False)}```",
        f"To reproduce: {as_code(command(config, space, len(trials)))}",
    ]
    return mask("\n\n".join(filter(None, parts)) + "\n")


def command(config: RetrainConfig, space: Space, trials: int) -> str:
    """The command line of this sweep."""
    flags = [config.as_flags] if config.as_flags else []
    over = [f"--over {shlex.quote(f'{name}: {_one_line(spec)}')}" for name, spec in space.items()]
    return " ".join(["layerflow sweep", *flags, f"--trials {trials}", *over])


def _one_line(spec: dict[str, list[Any]]) -> str:
    ((kind, values),) = spec.items()
    return f"{{{kind}: {json.dumps(values, default=str)}}}"


def _progress(monitor: str, trials: Sequence[Trial], winner: Trial) -> str:
    """Each trial's figure, and the best one until then."""
    figure, axis = new_figure(8, 2.6)
    better = max if is_maximized(monitor) else min
    complete = [trial for trial in trials if trial.state == "complete"]
    pruned = [trial for trial in trials if trial.state == "pruned"]
    best: list[float] = []
    for trial in complete:
        assert trial.value is not None
        best.append(better([*best[-1:], trial.value]))
    numbers = [trial.number for trial in complete]
    axis.step(
        [*numbers, trials[-1].number], [*best, best[-1]], where="post", color=COLOURS["test"], label="best so far"
    )
    axis.plot(numbers, [trial.value for trial in complete], ".", color=COLOURS["train"], label="complete")
    if pruned:
        axis.plot([t.number for t in pruned], [t.value for t in pruned], "x", color=INK, label="pruned, last figure")
    axis.plot(
        winner.number, winner.value, "o", color=COLOURS["bad"], markersize=5, label=f"best: trial {winner.number}"
    )
    _finish(axis, "trial", monitor, [trial.value for trial in trials if trial.value is not None])
    return picture(
        figure, f"Figures of {len(trials)} trials in {monitor}, and the best so far; {winner.number} is best"
    )


def _importances(importances: Mapping[str, float]) -> str:
    if not importances:
        return "Too few trials are complete to show which settings mattered."
    names = list(importances)[::-1]
    figure, axis = new_figure(8, 0.6 + 0.28 * len(names))
    axis.barh(names, [importances[name] for name in names], color=COLOURS["train"], height=0.6)
    axis.set_title("share of the variance explained by each setting (fANOVA)", color=INK, fontsize=9)
    axis.set_xlim(0, 1)
    shares = ", ".join(f"{name} {share:.2f}" for name, share in importances.items())
    return f"## Which settings mattered\n\n{picture(figure, f'Bars: {shares}')}"


def _curves(monitor: str, trials: Sequence[Trial], winner: Trial) -> str:
    figure, axis = new_figure(8, 3.2)
    looks: dict[str, dict[str, Any]] = {
        "complete": {"color": COLOURS["train"], "alpha": 0.5},
        "pruned": {"color": COLOURS["validation"], "alpha": 0.8},
        "failed": {"color": INK, "linestyle": ":"},
        "running": {"color": INK, "linestyle": ":"},
    }
    named: set[str] = set()
    for trial in trials:
        if trial.curve and trial.number != winner.number:
            label = None if trial.state in named else trial.state
            epochs = range(1, len(trial.curve) + 1)
            axis.plot(epochs, trial.curve, linewidth=1, label=label, **_pointed(trial), **looks[trial.state])
            named.add(trial.state)
    epochs = range(1, len(winner.curve) + 1)
    best: dict[str, Any] = {"color": COLOURS["bad"], "linewidth": 1.8, "label": f"best: trial {winner.number}"}
    axis.plot(epochs, winner.curve, **_pointed(winner), **best)
    _finish(axis, "epoch", monitor, [value for trial in trials for value in trial.curve])
    return picture(figure, f"Curves: {monitor} of each trial by epoch; trial {winner.number} is best")


def _pointed(trial: Trial) -> dict[str, Any]:
    """A curve of one point is seen as a point only."""
    return {"marker": "."} if len(trial.curve) == 1 else {}


def _finish(axis: Any, below: str, monitor: str, values: Sequence[float]) -> None:
    if not is_maximized(monitor) and all(value > 0 for value in values):
        axis.set_yscale("log")  # losses differ by powers of ten, and the small ones are those that count
        axis.tick_params(which="both", colors=INK, labelsize=8)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel(below, color=INK, fontsize=8)
    axis.set_ylabel(monitor, color=INK, fontsize=8)
    axis.legend(fontsize=8, labelcolor=INK, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _table(monitor: str, space: Space, trials: Sequence[Trial]) -> str:
    """The trials in their order; of very many the best."""
    said = any(trial.reason for trial in trials)
    sign = -1 if is_maximized(monitor) else 1
    shown = sorted(trials, key=lambda trial: sign * trial.value if trial.value is not None else float("inf"))
    shown = sorted(shown[:_MOST_ROWS], key=lambda trial: trial.number)
    rows = [
        (
            trial.number,
            trial.state,
            "" if trial.value is None else f"{trial.value:.4f}",
            len(trial.curve),
            f"{trial.seconds:.1f}",
            *(plain(short(trial.settings.get(name))) for name in space),
            *([plain(trial.reason)] if said else []),
        )
        for trial in shown
    ]
    head = (
        "trial",
        "state",
        monitor,
        "epochs",
        "seconds",
        *(f"`{name}`" for name in space),
        *(["reason"] if said else []),
    )
    left = f"\n\nThe best {_MOST_ROWS} of {len(trials)}." if len(trials) > _MOST_ROWS else ""
    return table(head, rows) + left
