"""Taking a bad version out of service."""

from prefect.runtime import flow_run

from layerflow.outcomes import RolledBack
from layerflow.settings.gate import SignConfig
from tasks import assets
from tasks.events import emit_model_event
from tasks.policy import as_task


def _rollback_model(name: str, to: int | None = None, sign: SignConfig = SignConfig()) -> RolledBack:  # noqa: B008
    """Publish an earlier version's bytes as the next version, after verifying them in a fresh process."""
    from layerflow.registry.rollback import roll_back

    done = roll_back(name, to, flow_run.name or "", signer=sign)
    emit_model_event("rolled_back", name, done.model_dump(mode="json"))
    assets.restored(done)
    return done


# Never retried: where the first try did publish, a second one would go back one version more.
rollback_model = as_task(_rollback_model, name="rollback_model", run_name="rollback-{name}").with_options(retries=0)
