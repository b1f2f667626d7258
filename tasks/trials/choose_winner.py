"""The best trial of a sweep, and the sweep's card."""

from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.errors import TrialError
from layerflow.sweeps.outcomes import StudyRef, SweepResult, Trial
from layerflow.sweeps.space import Space, configured
from layerflow.sweeps.study import Study
from tasks.cards import show_card
from tasks.policy import as_task


def show_sweep_card(config: RetrainConfig, space: Space, known: Study, winner: Trial) -> str:
    """Draw and show the sweep's card as it is now."""
    from layerflow.cards.sweep import draw

    text = draw(config, space, known.trials, winner, known.importances())
    show_card(
        f"sweep-{config.registry_name}",
        text,
        "The sweep: its trials, the settings that mattered, and the best of them",
        with_rerun_command=False,
    )
    return text


def _choose_winner(config: RetrainConfig, space: Space, study: StudyRef) -> SweepResult:
    """Take the complete trial with the best validation; draw the card of all."""
    known = Study(study)
    trials, winner = known.trials, known.best
    if winner is None:
        why = next((trial.reason for trial in trials if trial.reason), "none was begun")
        raise TrialError(
            f"A sweep needs one complete trial, and none of {len(trials)} is complete. The first: "
            f"{why.rstrip('.')}. Raise --trials to continue; lost trials are resumed."
        )
    card = f"{study.folder}/card.md"
    text = show_sweep_card(config, space, known, winner)
    with store.locked(f"{study.folder.replace('/', '-')}-card"):
        store.write_atomically(store.path(card), text.encode())
    best = configured(config, winner.settings)
    return SweepResult(monitor=study.monitor, trials=tuple(trials), winner=winner, config=best, card=card)


choose_winner = as_task(
    _choose_winner,
    name="choose_winner",
    run_name="choose-{config.model.name}-for-{config.data.title}",
)
