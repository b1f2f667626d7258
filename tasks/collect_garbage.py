"""The only step of the flow `gc`: removing what no model needs any more."""

from layerflow.collection.outcomes import Collected
from layerflow.settings.gc import GcConfig
from tasks.cards import show_card
from tasks.policy import as_task


def _collect_garbage(config: GcConfig) -> Collected:
    """Collect, and show what went as a card."""
    from layerflow.collection.card import draw
    from layerflow.collection.collect import collect

    done = collect(config)
    show_card("garbage", draw(done), "What was removed from the store, and what is left.")
    return done


collect_garbage = as_task(_collect_garbage, name="collect_garbage", run_name="collect-garbage")
