"""Models that try to forge their own verification, or to do more than compute, and what stops each."""

import json
import logging
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from layerflow import checksums
from layerflow.checksums import DIGESTS, EXTRA
from layerflow.errors import VerificationError
from layerflow.export import process, verification
from layerflow.export.verifier import answer, checks
from layerflow.export.verifier.graph import check_graph, computes
from layerflow.export.verifier.model import Model
from layerflow.export.verifier.refusal import RefusedError

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
SHAPE, CLASSES = (4, 4, 1), ["0", "1", "2"]
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
#: What a model does beside its answer: it gets the probabilities, and returns what it gives in their place.
Misdeed = Callable[[tf.Module, tf.Tensor], tf.Tensor]


def honest(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return probabilities


def ship(folder: Path, misdeed: Misdeed = honest, accepts: Misdeed | None = None, **more: Callable[..., Any]) -> Path:
    """Write a small linear classifier with all that layerflow exports beside it.

    Args:
        accepts: What gives its third answer, ``accepted``.
        **more: Further signatures.
    """
    module = tf.Module()
    module.weights = tf.Variable(np.random.default_rng(1).normal(size=(16, 3)), dtype=tf.float32)
    module.calls = tf.Variable(0)

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.uint8, name="images")])
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = tf.reshape(tf.cast(images, tf.float32) / 255.0, (-1, 16)) @ module.weights
        probabilities = misdeed(module, tf.nn.softmax(logits))
        answers = {"probabilities": probabilities, "class_id": tf.argmax(probabilities, axis=-1)}
        return answers | ({"accepted": accepts(module, probabilities)} if accepts else {})

    signatures = {"serving_default": serve, **more}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    finish(folder)
    return folder


def finish(folder: Path) -> None:
    """Golden examples that are as an honest model answers them, the contract, and the digests."""
    (folder / EXTRA).mkdir(exist_ok=True)
    weights = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
    exponents = np.exp((IMAGES.reshape(-1, 16).astype(np.float32) / 255) @ weights)
    np.savez(
        folder / EXTRA / "golden.npz",
        images=IMAGES,
        probabilities=(exponents / exponents.sum(-1, keepdims=True)).astype(np.float32),
    )
    (folder / EXTRA / "contract.json").write_text(json.dumps({"image_shape": SHAPE, "classes": CLASSES}))
    checksums.write_digests(folder)


def with_control(operation: Any, probabilities: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([operation] if isinstance(operation, tf.Operation) else list(operation)):
        return tf.identity(probabilities)


FORGED = '{"checks": {"golden": "forged"}, "test_examples": 1, "test_accuracy": 1.0, "seed": 1, "nonce": "?"}'


def prints_to_stdout(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return with_control(tf.raw_ops.PrintV2(input=FORGED, output_stream="stdout"), probabilities)


def prints_to_a_file(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return with_control(tf.raw_ops.PrintV2(input=FORGED, output_stream="file:///proc/self/fd/3"), probabilities)


def writes_a_file(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return with_control(tf.raw_ops.WriteFile(filename="/proc/self/fd/3", contents=FORGED), probabilities)


def reads_a_file(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    size = tf.strings.length(tf.io.read_file("/etc/passwd"))
    return probabilities + 0.0 * tf.cast(size, tf.float32)


def maps_a_file(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    constant = tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=(3,), memory_region_name="/etc/passwd")
    return probabilities + 0.0 * constant


def calls_python(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.numpy_function(lambda x: x, [probabilities], tf.float32), (None, 3))


def counts_its_calls(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    late = module.calls.assign_add(1) > 3000
    return tf.where(late, tf.one_hot(tf.zeros_like(probabilities[:, 0], tf.int32), 3), probabilities)


def counts_in_a_branch(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    calls = tf.cond(
        tf.shape(probabilities)[0] > 0, lambda: module.calls.assign_add(1), lambda: module.calls.read_value()
    )
    return tf.where(calls > 3000, 1.0 - probabilities, probabilities)


def writes_in_place(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    moved = tf.raw_ops.InplaceAdd(x=module.weights.read_value(), i=[0], v=tf.zeros((1, 3)))
    return probabilities + 0.0 * tf.reduce_sum(moved)


def draws_numbers(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.random.uniform(()) > 0.9999, tf.ones_like(probabilities) / 3.0, probabilities)


def looks_at_the_clock(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.timestamp() > 2e9, 1.0 - probabilities, probabilities)


@pytest.mark.parametrize(
    ("misdeed", "operation"),
    [
        (prints_to_stdout, "print operation PrintV2"),
        (prints_to_a_file, "print operation PrintV2"),
        (writes_a_file, "file operation WriteFile"),
        (reads_a_file, "file operation ReadFile"),
        (maps_a_file, "file operation ImmutableConst"),
        (calls_python, "Python operation (Eager)?PyFunc"),
        (counts_its_calls, "stateful write operation AssignAddVariableOp"),
        (counts_in_a_branch, "stateful write operation AssignAddVariableOp"),
        (writes_in_place, "stateful write operation InplaceAdd"),
        (draws_numbers, "random number operation RandomUniform"),
        (looks_at_the_clock, "other operation Timestamp"),
    ],
)
def test_a_graph_that_does_more_than_compute_is_refused_before_it_is_loaded(
    tmp_path: Path, misdeed: Misdeed, operation: str
) -> None:
    model = ship(tmp_path / "model", misdeed)
    with pytest.raises(RefusedError, match=f"nothing but compute, and at inference it has the {operation} "):
        check_graph(model)


def test_no_graph_is_loaded_unchecked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.saved_model, "load", lambda folder: pytest.fail("it was loaded"))
    with pytest.raises(RefusedError, match="file operation WriteFile"):
        Model(ship(tmp_path / "model", writes_a_file))


def test_an_honest_graph_is_not_refused(tmp_path: Path) -> None:
    assert "compute" in check_graph(ship(tmp_path / "model"))


def test_a_file_operation_is_refused_wherever_it_is_in_the_file(tmp_path: Path) -> None:
    def secret(name: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"content": tf.io.read_file(name)}

    model = ship(tmp_path / "model", honest)
    saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    read = tf.function(secret).get_concrete_function(tf.TensorSpec((), tf.string)).graph.as_graph_def()
    stray = saved.meta_graphs[0].graph_def.library.function.add()
    stray.signature.name = "stray"
    stray.node_def.extend(node for node in read.node if node.op == "ReadFile")
    (model / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(RefusedError, match="file operation ReadFile"):
        check_graph(model)


def test_a_signature_beyond_the_contract_is_refused(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec((), tf.float32, name="x")])
    def more(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"twice": 2.0 * x}

    model = ship(tmp_path / "model", debug=more)
    with pytest.raises(RefusedError, match="that layerflow doesn't export must not be there, received debug"):
        check_graph(model)


def test_an_operation_that_tensorflow_does_not_know_is_refused(tmp_path: Path) -> None:
    model = ship(tmp_path / "model")
    saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    saved.meta_graphs[0].graph_def.node.add(name="mine", op="FromALibraryOfMine")
    (model / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(RefusedError, match="unknown operation FromALibraryOfMine"):
        check_graph(model)


@pytest.mark.parametrize("name", ["saved_model.cpb", "saved_model.pbtxt"])
def test_a_second_description_of_the_model_is_refused(tmp_path: Path, name: str) -> None:
    model = ship(tmp_path / "model")
    (model / name).write_bytes(b"")
    with pytest.raises(RefusedError, match=f"there is {name}"):
        check_graph(model)


def test_a_damaged_description_is_refused(tmp_path: Path) -> None:
    model = ship(tmp_path / "model")
    (model / "saved_model.pb").write_bytes(b"\x0a\xff")
    with pytest.raises(RefusedError, match=r"saved_model.pb can't be parsed"):
        check_graph(model)


def test_a_function_cannot_hide_under_the_name_of_an_operation(tmp_path: Path) -> None:
    model = ship(tmp_path / "model")
    saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    saved.meta_graphs[0].graph_def.library.function.add().signature.name = "PrintV2"
    (model / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(RefusedError, match="has the name of the operation PrintV2"):
        check_graph(model)


HARMFUL = """
ReadFile WriteFile PyFunc PyFuncStateless EagerPyFunc ImmutableConst Print PrintV2 SaveV2 RestoreV2 Restore
DebugIdentity Copy XlaCustomCall XlaCallModule RemoteCall RpcClient DecodeProtoV2 GenerateVocabRemapping Assign
ScatterAdd AssignVariableOp ResourceApplyAdam LookupTableInsertV2 InitializeTableFromTextFileV2 BatchFunction
SnapshotDataset Abort CustomAggregator MutableHashTableV2 StackPushV2 QueueEnqueueV2 RandomUniform Empty
"""


@pytest.mark.parametrize("op", HARMFUL.split())
def test_an_operation_that_can_do_harm_does_not_count_as_computing(op: str) -> None:
    assert not computes(op)


def test_what_serving_would_answer_is_verified_beside_what_python_answers(tmp_path: Path) -> None:
    """TensorFlow Serving runs the nodes that the signature names, Python a function among the objects."""
    model = ship(tmp_path / "model")
    saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    graph, signature = saved.meta_graphs[0].graph_def, saved.meta_graphs[0].signature_def["serving_default"]
    name = signature.outputs["probabilities"].name
    exchanged = graph.node.add(name="exchanged", op="Reverse")  # the last class first, in Serving alone
    exchanged.input.extend([name, "exchanged/dims"])
    exchanged.attr["T"].type = tf.float32.as_datatype_enum
    dims = graph.node.add(name="exchanged/dims", op="Const")
    dims.attr["dtype"].type = tf.bool.as_datatype_enum
    dims.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([False, True]))
    signature.outputs["probabilities"].name = "exchanged:0"
    (model / "saved_model.pb").write_bytes(saved.SerializeToString())
    loaded = Model(model)
    loaded.check_contract({"image_shape": SHAPE, "classes": CLASSES})
    with np.load(model / EXTRA / "golden.npz") as golden:
        assert np.allclose(loaded.answer(golden["images"], served=False), golden["probabilities"], atol=1e-5)
        with pytest.raises(RefusedError):
            checks.check_golden(loaded, dict(golden))


def test_answers_that_depend_on_the_batch_are_refused(tmp_path: Path) -> None:
    def right_for_the_sizes_of_old(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
        size = tf.shape(probabilities)[0]
        tried = tf.reduce_any(size == tf.constant([1, 7, len(IMAGES), 1000]))
        return tf.cond(tried, lambda: probabilities, lambda: tf.reverse(probabilities, [1]))

    model = Model(ship(tmp_path / "model", right_for_the_sizes_of_old))
    model.check_contract({"image_shape": SHAPE, "classes": CLASSES})
    with np.load(tmp_path / "model" / EXTRA / "golden.npz") as archive:
        golden = dict(archive)
    checks.check_golden(model, golden)
    with pytest.raises(RefusedError, match="batch of 2: answers differ"):
        checks.check_batches(model, golden, np.random.default_rng(0))


def test_sizes_and_places_of_batches_follow_from_the_seed_alone() -> None:
    class Watched(Model):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def answer(self, images: np.ndarray, served: bool) -> np.ndarray:
            self.seen.append((images.ravel().tolist(), served))
            return np.ones((len(images), 3), np.float32) / 3

    def asked(seed: int) -> list[Any]:
        model, images = Watched(), np.arange(5000, dtype=np.int64).reshape(5000, 1)
        answers = model.answer_all(images, np.random.default_rng(seed))
        assert len(answers) == 5000
        assert sorted(row for rows, _ in model.seen for row in rows) == list(range(5000))
        return model.seen

    assert asked(1) == asked(1) != asked(2)
    assert {served for _, served in asked(1)} == {False, True}


@pytest.mark.process
@pytest.mark.usefixtures("new_verifier")
def test_what_a_model_prints_is_no_answer_and_goes_to_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a process of its own, since what is attacked is the channel to it; its list of operations is taken out."""
    monkeypatch.setattr(process, "_VERIFIER", PROGRAMS / "verifier_without_a_list.py")
    model = ship(tmp_path / "model", prints_to_stdout)
    with caplog.at_level(logging.INFO, logger="layerflow"):
        report = verification.inspect(model)
    assert report["checks"]["golden"].startswith("40 golden examples")
    assert "test_accuracy" not in report
    assert "forged" in caplog.text


@pytest.mark.process
@pytest.mark.usefixtures("new_verifier")
def test_an_answer_without_the_nonce_of_the_request_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, since what is attacked is the channel to it: this graph writes into it."""

    def writes_an_answer(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
        return with_control(tf.raw_ops.PrintV2(input=FORGED, output_stream="file:///proc/self/fd/100"), probabilities)

    monkeypatch.setattr(process, "_VERIFIER", PROGRAMS / "verifier_without_a_list.py")
    with pytest.raises(VerificationError, match="must answer with the nonce of its request"):
        verification.inspect(ship(tmp_path / "model", writes_an_answer))


@pytest.mark.process
@pytest.mark.usefixtures("new_verifier")
def test_the_process_gets_no_secret_and_has_limits_and_room_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, since the question is what such a process inherits."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("TF_TOKEN_registry", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(process, "_VERIFIER", PROGRAMS / "tells_its_limits.py")
    report = verification.inspect(ship(tmp_path / "model"))
    assert "secret" not in report["environment"].values()
    assert "CUDA_VISIBLE_DEVICES" in report["environment"]
    assert report["environment"]["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert not report["tf32"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < report["limits"]["RLIMIT_DATA"][1] <= memory
    assert report["limits"]["RLIMIT_FSIZE"][1] == 16 * 2**20
    assert report["limits"]["RLIMIT_CORE"] == [0, 0]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != report["limits"]["RLIMIT_FSIZE"][0]  # this process has none


def test_the_time_limit_follows_the_model_and_the_images(tmp_path: Path) -> None:
    model = ship(tmp_path / "model")
    alone = process._timeout({"saved_model": str(model)})
    np.save(tmp_path / "labels.npy", np.zeros(100_000, np.int32), allow_pickle=False)
    scored = process._timeout({"saved_model": str(model), "test_labels": str(tmp_path / "labels.npy")})
    (model / "variables" / "more").write_bytes(bytes(2**22))
    assert (
        300
        < alone
        < scored
        < process._timeout({"saved_model": str(model), "test_labels": str(tmp_path / "labels.npy")})
    )


@pytest.fixture
def tests(tmp_path: Path) -> dict[str, str]:
    """A test split that an honest model answers, as the two files of a request."""
    np.save(tmp_path / "images.npy", IMAGES, allow_pickle=False)
    np.save(tmp_path / "labels.npy", np.arange(len(IMAGES), dtype=np.int32) % 3, allow_pickle=False)
    return {"test_images": str(tmp_path / "images.npy"), "test_labels": str(tmp_path / "labels.npy")}


def asked(**request: object) -> dict[str, object]:
    return {"digests": DIGESTS, "seed": 1, "must_not_import": [], **request}


def test_an_error_of_the_challenger_is_never_the_champions(tmp_path: Path, tests: dict[str, str]) -> None:
    def no_numbers(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
        return probabilities / 0.0 * 0.0

    sound, broken = ship(tmp_path / "sound"), ship(tmp_path / "broken", no_numbers)
    request = asked(saved_model=str(broken), champion=str(sound), **tests)
    with pytest.raises(RefusedError, match="a probability is not a finite number"):
        answer.compare_with_champion(request)
    request = asked(saved_model=str(sound), champion=str(broken), **tests)
    assert "not a finite number" in answer.compare_with_champion(request)["not_comparable"]


def test_a_challenger_without_its_contract_is_refused_and_not_called_incomparable(
    tmp_path: Path, tests: dict[str, str]
) -> None:
    sound = ship(tmp_path / "sound")
    torn = Path(shutil.copytree(sound, tmp_path / "torn"))
    (torn / EXTRA / "contract.json").write_text("{")
    request = asked(saved_model=str(torn), champion=str(sound), **tests)
    with pytest.raises(ValueError, match="Expecting property name"):
        answer.compare_with_champion(request)


def test_test_examples_that_cannot_be_read_are_not_the_champions_fault(tmp_path: Path, tests: dict[str, str]) -> None:
    sound = ship(tmp_path / "sound")
    Path(tests["test_labels"]).unlink()
    request = asked(saved_model=str(sound), champion=str(sound), **tests)
    with pytest.raises(FileNotFoundError):
        answer.compare_with_champion(request)


#: A threshold between the confidences of the images: some are accepted.
THRESHOLD = 0.7


def by_threshold(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(probabilities, axis=-1) >= THRESHOLD


def everything(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return tf.ones_like(probabilities[:, 0], tf.bool)


def nearly_by_threshold(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(probabilities, axis=-1) >= THRESHOLD - 0.05


def for_the_third_class(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return by_threshold(module, probabilities) | (tf.argmax(probabilities, axis=-1) == 2)


def in_a_column(module: tf.Module, probabilities: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.shape(probabilities)[0] > 0, lambda: by_threshold(module, probabilities)[:, None], lambda: True)


def abstaining(folder: Path, accepts: Misdeed | None, threshold: object = THRESHOLD) -> Path:
    """A model with ``accepted``, a contract with the threshold, and golden examples that agree with it."""
    model = ship(folder, accepts=accepts)
    contract = {"image_shape": SHAPE, "classes": CLASSES, "threshold": threshold}
    (model / EXTRA / "contract.json").write_text(json.dumps(contract))
    with np.load(model / EXTRA / "golden.npz") as archive:
        golden = dict(archive)
    accepted = golden["probabilities"].max(axis=-1) >= np.float32(THRESHOLD)
    assert 0 < accepted.sum() < len(accepted)
    np.savez(model / EXTRA / "golden.npz", **golden, accepted=accepted)
    checksums.write_digests(model)
    return model


def answers_of(model: Path) -> np.ndarray:
    with np.load(model / EXTRA / "golden.npz") as archive:
        return np.asarray(archive["probabilities"])


def test_what_is_accepted_by_the_threshold_of_the_contract_is_verified(tmp_path: Path, tests: dict[str, str]) -> None:
    model = abstaining(tmp_path / "model", by_threshold)
    np.save(tmp_path / "predictions.npy", answers_of(model), allow_pickle=False)
    found = answer.verify(asked(saved_model=str(model), predictions=str(tmp_path / "predictions.npy"), **tests))
    assert "to accepted bool from a probability of 0.7 on" in found["checks"]["contract"]
    accepted = int((answers_of(model).max(axis=-1) >= 0.7).sum())
    assert found["checks"]["test_split"].endswith(f", {accepted} of them are accepted")


@pytest.mark.parametrize("accepts", [everything, nearly_by_threshold, for_the_third_class, in_a_column])
def test_a_model_that_accepts_by_anything_but_the_threshold_is_refused(tmp_path: Path, accepts: Misdeed) -> None:
    model = abstaining(tmp_path / "model", accepts)
    with pytest.raises(RefusedError, match=r"accepted is not what its probabilities and the threshold 0\.7 give"):
        answer.verify(asked(saved_model=str(model)))


def test_a_forged_threshold_in_the_contract_is_refused(tmp_path: Path) -> None:
    model = abstaining(tmp_path / "model", by_threshold, threshold=0.65)
    with pytest.raises(RefusedError, match=r"accepted is not what its probabilities and the threshold 0\.65 give"):
        answer.verify(asked(saved_model=str(model)))


def test_what_serving_would_accept_is_verified_too(tmp_path: Path) -> None:
    model = abstaining(tmp_path / "model", by_threshold)
    saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    graph, signature = saved.meta_graphs[0].graph_def, saved.meta_graphs[0].signature_def["serving_default"]
    graph.node.add(name="refused", op="LogicalNot").input.append(signature.outputs["accepted"].name)
    signature.outputs["accepted"].name = "refused:0"
    (model / "saved_model.pb").write_bytes(saved.SerializeToString())
    loaded = Model(model)
    loaded.check_contract({"image_shape": SHAPE, "classes": CLASSES, "threshold": THRESHOLD})
    loaded.answer(IMAGES, served=False)
    with pytest.raises(RefusedError, match="accepted is not what"):
        loaded.answer(IMAGES, served=True)


def test_accepted_without_a_threshold_and_a_threshold_without_accepted_are_refused(tmp_path: Path) -> None:
    contract = {"image_shape": SHAPE, "classes": CLASSES}
    with pytest.raises(RefusedError, match=r"outputs must be .'class_id', 'probabilities'., received .'accepted'"):
        Model(abstaining(tmp_path / "more", by_threshold)).check_contract(contract)
    with pytest.raises(RefusedError, match=r"outputs must be .'accepted', 'class_id', 'probabilities'., received"):
        Model(ship(tmp_path / "less")).check_contract(contract | {"threshold": THRESHOLD})


@pytest.mark.parametrize("threshold", ["0.7", True, [0.7], float("nan"), float("inf")])
def test_a_threshold_that_is_no_number_is_refused(tmp_path: Path, threshold: object) -> None:
    model = abstaining(tmp_path / "model", by_threshold, threshold)
    with pytest.raises(RefusedError, match="the contract's threshold must be a number, received"):
        answer.verify(asked(saved_model=str(model)))


def test_a_model_that_abstains_and_one_that_does_not_are_compared(tmp_path: Path, tests: dict[str, str]) -> None:
    with_, without = abstaining(tmp_path / "with", by_threshold), ship(tmp_path / "without")
    for ours, theirs in ((with_, without), (without, with_), (with_, with_)):
        found = answer.compare_with_champion(asked(saved_model=str(ours), champion=str(theirs), **tests))
        assert found["only_challenger"] == found["only_champion"] == 0
        assert found["both_right"] + found["both_wrong"] == len(IMAGES)
    forged = abstaining(tmp_path / "forged", everything)
    request = asked(saved_model=str(with_), champion=str(forged), **tests)
    assert "accepted is not what" in answer.compare_with_champion(request)["not_comparable"]


@pytest.mark.parametrize("number", [-1, 2])
def test_a_class_id_that_is_the_number_of_no_class_is_refused(number: int, tmp_path: Path) -> None:
    model = Model(ship(tmp_path / "model"))
    model.threshold = None
    answers = {"probabilities": np.array([[1, 0]] if number < 0 else [[0, 1]], np.float32)}
    model.check_answers({**answers, "class_id": answers["probabilities"].argmax(axis=-1)})
    with pytest.raises(RefusedError, match="class_id is the number of no class"):
        model.check_answers({**answers, "class_id": np.array([number])})
