"""How the gate decides, by simulation: how often better and worse models are published, and a year of slow decline.

Usage: ``python benchmarks/gate.py [REPETITIONS] [FOLDER]``. The rules are layerflow's own, on drawn answers: each test
image is answered right by both models, by one, or by none. FOLDER gets two pictures.
"""

import sys
from pathlib import Path

import numpy as np

from layerflow.cards.drawing import COLOURS, INK, new_figure
from layerflow.outcomes import Comparison
from layerflow.registry.decision import Decision
from layerflow.registry.figures import comparison_of
from layerflow.registry.gate import against_best, judge
from layerflow.settings.gate import GateConfig

SIZES, DIFFERENCES = (360, 1000, 10_000), np.arange(-2, 2.01, 0.25) / 100
ACCURACY = 0.95
#: Share of the images on which two trainings of one network differ, one right and the other wrong, as on MNIST: of two
#: models whose accuracies differ by more, it is that difference.
DISAGREE = 0.02
NIGHTS, FALL = 365, 0.001


def drawn(difference: float, examples: int, chance: np.random.Generator, version: int = 1) -> Comparison:
    """A comparison on so many images of two models whose true accuracies differ by so much."""
    disagree = max(DISAGREE, abs(difference))
    better, worse = (disagree + difference) / 2, (disagree - difference) / 2
    both = ACCURACY - worse
    counts = [int(each) for each in chance.multinomial(examples, [both, better, worse, 1 - both - better - worse])]
    return as_comparison(*counts, version)


def as_comparison(both: int, challenger: int, champion: int, neither: int, version: int = 1) -> Comparison:
    """What the gate sees of these counts."""
    examples = both + challenger + champion + neither

    def side(right: int) -> dict[str, object]:
        figures = dict.fromkeys(("lowest_recall", "latency_p50_ms", "latency_p99_ms"), 1.0)
        return {"accuracy": (both + right) / examples, "lowest_class": "", **figures}

    names = ("both_right", "only_challenger", "only_champion", "both_wrong")
    report = {"champion": side(champion), "challenger": side(challenger)}
    return comparison_of(version, report | dict(zip(names, (both, challenger, champion, neither), strict=True)))


def published(difference: float, examples: int, repetitions: int, gate: GateConfig) -> float:
    """The share of repetitions in which the challenger is published."""
    chance = np.random.default_rng(0)
    codes = [judge(gate, drawn(difference, examples, chance)).code for _ in range(repetitions)]
    return sum(code.startswith("promoted") for code in codes) / repetitions


def year(examples: int, measured_by_best: bool) -> list[float]:
    """The true accuracy of the live version after each night, when each night's model is worse than the last."""
    chance, gate = np.random.default_rng(1), GateConfig()
    versions, live, best, course = [ACCURACY], 0, 0, []
    for night in range(1, NIGHTS + 1):
        accuracy = ACCURACY - FALL * night
        found = drawn(accuracy - versions[live], examples, chance, live)
        verdict, second = judge(gate, found), None
        if measured_by_best and best != live:
            second = drawn(accuracy - versions[best], examples, chance, best)
            verdict = against_best(gate, verdict, second)
        if verdict.code.startswith("promoted"):
            versions.append(accuracy)
            live = len(versions) - 1
            if Decision(verdict, found, second).is_best:
                best = live
        course.append(versions[live])
    return course


def main(repetitions: int, folder: Path) -> None:
    """Print both tables, and draw them."""
    rates = {}
    for rule in ("not_worse", "better"):
        gate = GateConfig(rule=rule)
        print(f"gate.rule {rule}: share of {repetitions:,} models published, by true difference in points")
        print("test images " + " ".join(f"{100 * each:+6.2f}" for each in DIFFERENCES))
        for size in SIZES:
            rates[rule, size] = [published(each, size, repetitions, gate) for each in DIFFERENCES]
            print(f"{size:11,} " + " ".join(f"{each:6.3f}" for each in rates[rule, size]), flush=True)
    figure, axis = new_figure(7, 3)
    styles = {"not_worse": "-", "better": "--"}
    for (rule, size), shares in rates.items():
        colour = COLOURS[("train", "validation", "test")[SIZES.index(size)]]
        axis.plot(100 * DIFFERENCES, shares, styles[rule], color=colour, label=f"{size:,} images, {rule}")
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_xlabel("true difference in accuracy, points", color=INK)
    axis.set_ylabel("share published", color=INK)
    axis.legend(fontsize=7, labelcolor=INK, frameon=False)
    figure.savefig(folder / "gate-rates.png", dpi=150, facecolor="white", bbox_inches="tight")
    figure, axis = new_figure(7, 2.6)
    for measured, colour, name in ((False, "bad", "live version alone"), (True, "train", "best version too")):
        course = year(10_000, measured)
        print(f"a year, measured against the {name}: from {ACCURACY:.3f} to {course[-1]:.3f}")
        axis.plot(100 * np.array(course), color=COLOURS[colour], label=f"measured against the {name}")
    axis.axhline(100 * (ACCURACY - GateConfig().margin), color=INK, linestyle=":", linewidth=1, label="the margin")
    axis.set_xlabel("night", color=INK)
    axis.set_ylabel("accuracy, %", color=INK)
    axis.legend(fontsize=7, labelcolor=INK, frameon=False)
    figure.savefig(folder / "gate-decline.png", dpi=150, facecolor="white", bbox_inches="tight")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, Path(sys.argv[2]) if len(sys.argv) > 2 else Path())
