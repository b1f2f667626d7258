"""A decision as people look at it: a summary of one screen, then the new model against the live version."""

from layerflow.cards.drawing import COLOURS, INK, new_figure, picture
from layerflow.cards.markdown import as_code, plain, short, table
from layerflow.evaluation.statistics import MOST_LOOKS, p_text, supported_looks
from layerflow.outcomes import Comparison, DecisionCode, Promotion
from layerflow.records import DatasetRef, Evaluation
from layerflow.settings.gate import GateConfig

_WORDS: dict[DecisionCode, str] = {
    "promoted_first": "Published: this is the first version, and it meets the floors.",
    "promoted_better": "Published: significantly better than the live version.",
    "promoted_not_worse": "Published: not worse than the live version, within noise and margin.",
    "promoted_formats": "Published: it is the live version, with more formats.",
    "promoted_not_comparable": "Published: it meets the floors, and the live version can't be compared with it.",
    "promoted_forced": "Published by force, against the result of the comparison.",
    "kept_worse": "Not published: worse than the live version.",
    "kept_within_noise": "Not published: no better than noise explains.",
    "kept_below_floor": "Not published: below a floor.",
    "kept_too_slow": "Not published: too slow.",
    "kept_not_comparable": "Not published: it can't be compared with the live version.",
    "kept_rolled_back": "Not published: this exact model was rolled back.",
    "waiting_for_approval": "Not published yet: a person must approve it.",
    "kept_rejected": "Not published: a person rejected it.",
    "kept_unanswered": "Not published: nobody approved it in time.",
    "kept_obsolete": "Not published: a newer run made the question obsolete.",
    "kept_overtaken": "Not published: the live version changed before it was approved.",
    "unchanged": "Nothing to do: this exact model is live.",
    "refused_unverified": "Refused: it was not verified.",
}
_BY_FORCE = 'To publish it anyway, re-run with `--gate.force "your reason"`.'
_FLOORS_ONLY = "To let the floors alone decide, re-run with `--gate.not_comparable floors_only`"
_COMPARABLE = (
    "Models are compared on the test images that neither has learned from. Keep the test images when you add new ones, "
    "and don't change `data.image_size` or the fractions. `gate.classes` allows other classes."
)
#: What to do about a model that was not published.
_NEXT: dict[DecisionCode, str] = {
    "kept_worse": "Look for the cause in the changes and in the confusion matrix, or try other settings with "
    f"`layerflow sweep`. {_BY_FORCE}",
    "kept_within_noise": "More test images make a smaller gain significant. `--gate.rule not_worse` publishes a model "
    f"that is as good as the live version. {_BY_FORCE}",
    "kept_below_floor": "Train longer, add images of the worst classes and slices, or lower the floor that the reason "
    "names. `gate.force` does not lift a floor.",
    "kept_too_slow": "Use a smaller network, or raise `gate.max_latency_ratio`. `gate.force` does not lift it.",
    "kept_not_comparable": f"{_FLOORS_ONLY}. {_COMPARABLE}",
    "kept_rolled_back": f"New data or other settings make a new model, which may be published. {_BY_FORCE}",
    "kept_rejected": f"New data or other settings make a new model, which may be published. {_BY_FORCE}",
    "kept_unanswered": "Re-run the command to ask again.",
    "kept_obsolete": "Look at the newer run.",
    "kept_overtaken": "Re-run the command to compare the model with the version that is live now.",
    "refused_unverified": "Re-run the command to verify the export again.",
}
#: Slices that a card shows.
_MOST_SLICES = 20
#: Changes that fit into the summary.
_FEW = 3


def draw(gate: GateConfig, made: Promotion, evaluation: Evaluation, data: DatasetRef) -> str:
    """The card, Markdown.

    Args:
        gate: What was decided by.
        made: The decision on the model.
        evaluation: Its scores on the test images.
        data: What it was trained and tested on.
    """
    found = made.comparison
    parts = [
        f"# {_heading(made)}",
        f"**{_WORDS[made.code]}** {plain(made.reason[:1].upper() + made.reason[1:].rstrip('.'))}. (`{made.code}`)",
        _figures(made, evaluation),
        _bars(made, evaluation),
        _facts(gate, made, data, evaluation),
    ]
    if found:
        parts += [f"## Version {found.champion_version} and the new model", _sides(found), _interval(gate, found)]
        parts += _slices(found)
    if made.champion_version and made.code != "unchanged":
        rows = [(f"`{each.field}`", plain(short(each.before)), plain(short(each.after))) for each in made.changes]
        head = ("setting, data or code", f"version {made.champion_version}", "new model")
        title = f"## All changes since version {made.champion_version}"
        parts += [title, table(head, rows) if rows else "The receipts record no change."]
    parts += ["## Files", f"Receipt: `{made.receipt}`. Report with all cards: `{made.report}`."]
    return "\n\n".join(parts) + "\n"


def _heading(made: Promotion) -> str:
    if made.status == "promoted":
        return f"✓ {plain(made.name)}: version {made.version} is live"
    if made.status == "unchanged":
        return f"✓ {plain(made.name)}: unchanged, version {made.version} stays live"
    if made.status == "waiting":
        return f"? {plain(made.name)}: candidate {made.candidate} waits for approval"
    stays = f"version {made.champion_version} stays live" if made.champion_version else "no version is live"
    return f"✗ {plain(made.name)}: {'refused' if made.status == 'refused' else 'not published'}, {stays}"


def _rival(made: Promotion) -> str:
    """The version that was live when the decision was made."""
    return f"{'previous' if made.status == 'promoted' else 'live'} version {made.champion_version or ''}".strip()


def _figures(made: Promotion, evaluation: Evaluation) -> str:
    """The four figures that tell most, a column each."""
    worst = evaluation.worst
    interval = f"95 % interval {evaluation.accuracy_low:.4f} to {evaluation.accuracy_high:.4f}"
    if made.comparison:
        ours, theirs = made.comparison.challenger.accuracy, made.comparison.champion.accuracy
        live = f"**{theirs:.4f}**", f"the new model: {ours - theirs:+.4f}"
    elif made.code == "unchanged":
        live = f"**{made.accuracy:.4f}**", "this exact model"
    else:
        live = ("**?**", "not compared") if made.champion_version else ("**none**", "this is the first")
    columns = [
        ("accuracy", f"**{made.accuracy:.4f}**", interval),
        ("baseline", f"**{evaluation.baseline:.4f}**", f"always answering {plain(evaluation.majority.name)}"),
        (_rival(made), *live),
        (
            "worst class",
            f"**{worst.recall:.4f}**",
            f"recall of {plain(worst.name)}: {round(worst.recall * worst.examples):,} of {worst.examples:,}",
        ),
    ]
    head, *rows = zip(*columns, strict=True)
    return table(head, rows)


def _bars(made: Promotion, evaluation: Evaluation) -> str:
    """The accuracy with its interval, beside the live version and the baseline."""
    rows = [("new model", made.accuracy, "train")]
    if made.comparison:
        rows.append((_rival(made), made.comparison.champion.accuracy, "test"))
    rows.append(("baseline", evaluation.baseline, "validation"))
    figure, axis = new_figure(5.6, 0.5 + 0.3 * len(rows))
    for place, (_, accuracy, colour) in enumerate(rows):
        axis.barh(place, accuracy, color=COLOURS[colour], height=0.62)
    low, high = evaluation.accuracy_low, evaluation.accuracy_high
    axis.plot([low, high], [0, 0], color=INK, linewidth=2, marker="|", markersize=9)
    for place, (_, accuracy, _) in enumerate(rows):
        axis.text(max(accuracy, 0 if place else high) + 0.015, place, f"{accuracy:.1%}", va="center", color=INK)
    axis.set(xlim=(0, 1.13), ylim=(len(rows) - 0.5, -0.5), xticks=(0, 0.5, 1))
    axis.set_xticklabels(("0 %", "50 %", "100 %"))
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axis.tick_params(labelsize=9.7)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    said = ", ".join(f"{name} {accuracy:.4f}" for name, accuracy, _ in rows)
    return picture(figure, f"Bars: accuracy of the {said}")


def _facts(gate: GateConfig, made: Promotion, data: DatasetRef, evaluation: Evaluation) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in data.counts.items())
    facts = {
        "Images": f"{counts}; {len(data.classes):,} classes of {plain(data.name)}",
        "Balanced accuracy": f"{evaluation.balanced_accuracy:.4f}, the mean recall over all classes",
    }
    if lowest := evaluation.lowest_slice:
        facts["Lowest slice"] = f"{plain(lowest.name)}: accuracy {lowest.accuracy:.4f} on {lowest.examples:,} images"
    if made.comparison:
        facts["Compared on"] = f"{made.comparison.images_text} that neither model has learned from"
        supported = supported_looks(made.comparison.deviation, gate.margin)
        more = " or more" if supported == MOST_LOOKS else ""
        looks = f"{made.comparison.look:,}; they support {supported:,}{more}"
        if made.comparison.look > supported:
            looks += ". **Collect new test images:** the best of so many models seems better than it is"
        facts["Looks at these test images"] = looks
    if made.best:
        best = made.best
        facts["Against the best version"] = (
            f"version {best.champion_version}: {best.difference_word} in {plain(best.metric)} {best.difference:+.4f} "
            f"(95 % interval {best.difference_low:+.4f} to {best.difference_high:+.4f}), on {best.images_text}"
        )
    if made.champion_version and made.code != "unchanged":
        few = "; ".join(
            f"`{each.field}` {plain(short(each.before, 24))} → {plain(short(each.after, 24))}"
            for each in made.changes[:_FEW]
        )
        more = f"; {len(made.changes) - _FEW} more below" if len(made.changes) > _FEW else ""
        facts[f"Changed since version {made.champion_version}"] = f"{few}{more}" or "nothing, according to the receipts"
    if made.published:
        facts["Live"] = f"version {made.version}, `{made.published}`"
    if made.approval:
        facts["Answer"] = f"{made.approval.when}, {plain(made.approval.text)}"
    if made.status == "waiting":
        facts["Next"] = (
            f"Approve or reject it until {made.until}: in the form that *Resume* opens on the page of the run, or "
            f"with {as_code(f'layerflow approve {made.name}')}. Without an answer, nothing changes."
        )
    elif made.code == "kept_not_comparable" and gate.max_latency_ratio is not None:
        facts["Next"] = f"{_FLOORS_ONLY} and without `gate.max_latency_ratio`. {_COMPARABLE}"
    elif made.code in _NEXT:
        facts["Next"] = _NEXT[made.code]
    return "\n".join(f"- **{name}:** {fact}" for name, fact in facts.items())


def _sides(found: Comparison) -> str:
    champion, challenger = found.champion, found.challenger
    rows: list[tuple[str, ...]] = [
        ("accuracy", *(f"{side.accuracy:.4f}" for side in (champion, challenger))),
        *([(plain(found.metric), *(f"{score:.4f}" for score in found.scores))] if found.metric != "accuracy" else []),
        (
            "lowest recall",
            *(f"{side.lowest_recall:.4f} ({plain(side.lowest_class)})" for side in (champion, challenger)),
        ),
        ("right where the other is wrong", f"{found.only_champion:,}", f"{found.only_challenger:,}"),
        ("latency p50", *(f"{side.latency_p50_ms:.2f} ms" for side in (champion, challenger))),
        ("latency p99", *(f"{side.latency_p99_ms:.2f} ms" for side in (champion, challenger))),
    ]
    return table(("", f"version {found.champion_version}", "new model"), rows)


def _slices(found: Comparison) -> list[str]:
    """Both models in each slice that is large enough, the least certain to be equal first; nothing without slices."""
    if not found.slices:
        return []
    shown = sorted(found.slices, key=lambda each: (each.p_value, each.difference))[:_MOST_SLICES]
    rows = [
        (
            plain(each.name),
            f"{each.examples:,}",
            f"{each.champion:.4f}",
            f"{each.challenger:.4f}",
            f"{each.difference:+.4f}",
            p_text(each.p_value),
        )
        for each in shown
    ]
    more = f" {len(found.slices) - len(shown):,} more are not shown." if len(found.slices) > len(shown) else ""
    head = ("slice", "images", f"version {found.champion_version}", "new model", found.difference_word, "corrected p")
    said = f"The {plain(found.metric)} of each slice; p is corrected for their number by Holm's method.{more}"
    return [said, table(head, rows)]


def _interval(gate: GateConfig, found: Comparison) -> str:
    """The difference with its interval, around 0; the margin where the rule asks for it."""
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
    what = f"{found.difference_word} in {found.metric}"
    label = f"{what}, new model against version {found.champion_version} (95 % interval)"
    axis.set_xlabel(label, color=INK, fontsize=8, parse_math=False)
    interval = f"{what} {difference:+.4f}, from {low:+.4f} to {high:+.4f}"
    return picture(figure, f"Interval: {interval}; {found.method} {p_text(found.p_value)}")
