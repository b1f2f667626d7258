"""The flow `retrain`: from a dataset's name to a published, proved model."""

from prefect import flow

from layerflow.config import RetrainConfig
from layerflow.outcomes import Retrained
from tasks import (
    build_model,
    convert_model,
    evaluate_model,
    export_model,
    hand_over,
    load_data,
    logs,
    own_checks,
    own_metrics,
    promote_model,
    track_run,
    train_model,
    validate_data,
    verify_export,
    verify_formats,
)
from tasks.approval import ask_a_person, asked_before, to_ask
from tasks.caching import remove_leftovers, result_storage
from tasks.card_file import require_card
from tasks.export_formats import libraries_of, require_all
from tasks.extensions import extensions_of
from tasks.first_weights import first_weights
from tasks.gate_metric import require_metric
from tasks.live_version import data_in_service, sums_of
from tasks.policy import forget_failure
from tasks.signing import require_signer


@flow(
    name="retrain",
    flow_run_name="retrain-{config.model.name}-on-{config.data.title}",
    description="Load, check, build, train, evaluate, export, verify in a fresh process, and publish what is proved.",
    result_storage=result_storage(),
    on_failure=[forget_failure],
    persist_result=False,  # the steps' own records are kept; a copy of them would be one more file a run
)
def retrain(config: RetrainConfig = RetrainConfig()) -> Retrained:  # noqa: B008  (frozen)
    """Retrain one image classifier. Steps whose inputs and code are unchanged are `Cached`."""
    logs.install()
    remove_leftovers(config.registry_name)
    if candidate := asked_before():  # resumed: about the same candidate, whatever the data are by now
        return ask_a_person(config.registry_name, candidate)
    require_card(config.registry)
    require_signer(config.registry.sign)
    extend, code = config.extend, extensions_of(config.extend)
    libraries = libraries_of(config.export.converted) | code["exporters"]
    devices = config.devices_for_model
    data = load_data(config.data, devices)
    require_metric(config.gate, data)
    config.export.abstain.require_enough(data.counts["validation"])
    checked = validate_data(config.checks, data, data_in_service(config.registry_name, data))
    findings = own_checks(extend.checks, code["checks"], data) if extend.checks else None
    weights = first_weights(config, data)
    model = build_model(config.model, data, config.training.seed, devices, weights)
    trained = train_model(config.training, config.augment, config.finetune, model, data, devices)
    evaluation = evaluate_model(config.export, trained, data, devices)
    figures = own_metrics(extend.metrics, code["metrics"], evaluation, data) if extend.metrics else None
    export = export_model(trained, evaluation.serving, data, devices)
    verification = verify_export(export, evaluation, data, config.data)
    formats = None
    if wanted := config.formats:
        converted = convert_model(export, data, wanted, libraries)
        formats = verify_formats(config.gate, converted, export, evaluation, verification, data, libraries)
        require_all(config.export, formats)
    decision = promote_model(
        config,
        *(data, checked, model, trained, evaluation, export, verification, formats, findings, figures),
        return_state=True,
    )
    made = Retrained(
        data=data,
        checked=checked,
        model=model,
        trained=trained,
        evaluation=evaluation,
        export=export,
        verification=verification,
        formats=formats,
        own_checks=findings,
        own_metrics=figures,
        promotion=decision.result(),  # type: ignore[attr-defined]  # Prefect's types forget return_state
    )
    if extend.trackers:
        track_run(config, made, return_state=True)  # failed or not: the model is decided about
    if candidate := to_ask(made.promotion):
        return ask_a_person(config.registry_name, candidate)
    if version := made.promotion.version:
        sums = sums_of(config.registry_name, version)
        for publisher in extend.publishers:
            hand_over(publisher, code["publishers"], config.registry_name, version, sums)
    return made


if __name__ == "__main__":
    retrain()
