"""A decision as people look at it: what was decided and why, the new model against the one in service."""

from layerflow.cards import COLOURS, INK, new_figure, picture, plain, short, table
from layerflow.config import GateConfig
from layerflow.gate import p_text
from layerflow.records import Code, Comparison, Promotion

_WORDS: dict[Code, str] = {
    "promoted_first": "Published: there was no champion to be compared with, and the floors are met.",
    "promoted_better": "Published: significantly better than the champion.",
    "promoted_not_worse": "Published: not worse than the champion, within noise and margin.",
    "promoted_not_comparable": "Published: the champion can't be compared with, and the floors are met.",
    "promoted_forced": "Published by force, against the comparison.",
    "kept_worse": "Not published: worse than the champion.",
    "kept_within_noise": "Not published: not better than noise explains.",
    "kept_below_floor": "Not published: a floor is not met.",
    "kept_too_slow": "Not published: too slow.",
    "kept_not_comparable": "Not published: the champion can't be compared with.",
    "kept_rolled_back": "Not published: this very model was taken back.",
    "unchanged": "Nothing to do: this very model is in service.",
    "refused_unverified": "Refused: it was not verified.",
}


def draw(gate: GateConfig, made: Promotion) -> str:
    """The card, Markdown; ``gate`` is what was decided by."""
    in_service = f"Version {made.version} is in service: `{made.published}`." if made.version else "None is in service."
    parts = [
        f"# Decision on {plain(made.name)}: {made.status}",
        f"**{_WORDS[made.code]}** `{made.code}`: {plain(made.reason.rstrip('.'))}.",
        f"Accuracy {made.accuracy:.4f} on {made.test_examples:,} test examples. {in_service}",
        f"Receipt: `{made.receipt}`. All five cards: `{made.report}`.",
    ]
    if made.comparison:
        parts += ["## Champion and challenger", _sides(made.comparison), _interval(gate, made.comparison)]
    if made.champion_version:
        rows = [(f"`{each.field}`", plain(short(each.before)), plain(short(each.after))) for each in made.changes]
        head = ("what differs", f"champion {made.champion_version}", "challenger")
        parts += ["## Since the champion", table(head, rows) if rows else "Nothing that the receipts know."]
    return "\n\n".join(parts) + "\n"


def _sides(found: Comparison) -> str:
    champion, challenger = found.champion, found.challenger
    rows: list[tuple[str, ...]] = [
        ("accuracy", *(f"{side.accuracy:.4f}" for side in (champion, challenger))),
        (
            "lowest recall",
            *(f"{side.lowest_recall:.4f} ({plain(side.lowest_class)})" for side in (champion, challenger)),
        ),
        ("right where the other is wrong", f"{found.only_champion:,}", f"{found.only_challenger:,}"),
        ("latency p50", *(f"{side.latency_p50_ms:.2f} ms" for side in (champion, challenger))),
        ("latency p99", *(f"{side.latency_p99_ms:.2f} ms" for side in (champion, challenger))),
    ]
    return table(("", f"champion {found.champion_version}", "challenger"), rows)


def _interval(gate: GateConfig, found: Comparison) -> str:
    """The difference in accuracy with its interval, around 0; the margin where the rule asks for it."""
    low, difference, high = found.difference_low, found.difference, found.difference_high
    colour = COLOURS["test"] if low > 0 else COLOURS["bad"] if high < 0 else COLOURS["train"]
    figure, axis = new_figure(8, 1.3)
    axis.plot([low, high], [0, 0], color=colour, linewidth=3, solid_capstyle="butt")
    axis.plot(difference, 0, "o", color=colour, markersize=8)
    axis.axvline(0, color=INK, linewidth=1)
    marks = {0.0: "equal"}
    if gate.rule == "not_worse" and gate.margin:
        axis.axvline(-gate.margin, color=COLOURS["bad"], linestyle="--", linewidth=1)
        marks[-gate.margin] = "margin "
    for at, text in marks.items():
        side = "right" if at else "left"
        axis.text(at, 0.75, f" {text}", ha=side, color=INK, fontsize=8)
    axis.set(ylim=(-1, 1), yticks=())
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("difference in accuracy, challenger minus champion (95 % interval)", color=INK, fontsize=8)
    interval = f"difference in accuracy {difference:+.4f}, from {low:+.4f} to {high:+.4f}"
    return picture(figure, f"Interval: {interval}; McNemar {p_text(found.p_value)}")
