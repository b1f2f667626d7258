"""Reload verification, run as a script in a process of its own that has only TensorFlow and NumPy.

Usage: ``python -I -S verifier.py DESCRIPTOR FOLDER...``, with the folders of the libraries as the only places to import
from. Then it waits for requests, one JSON object a line on stdin, so that it can be started before there is something
to verify, and writes one JSON object a line to the descriptor: either ``{"refused": reason}`` or the figures, with the
request's nonce. Stdout and stderr are left to whatever the libraries print. Imports nothing of this project, and
proves that it could not: a model that needs its training code to be loaded is no model to serve.

A request verifies ``saved_model``; or, where it names a ``champion``, it scores both on the same test examples.

The model is treated as hostile: before TensorFlow loads it, its file is parsed, and every operation in it must be on
the list of what computes, loads or saves a model. A graph that can write a file could otherwise write anywhere.
"""

import hashlib
import importlib.util
import json
import math
import os
import re
import resource
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path += sys.argv[2:]

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry  # the only place that says what an operation may do

#: Room for what float32 rounding does when other kernels multiply in another order (seen: 1e-6).
TOLERANCE = 1e-4
#: Largest batch that is tried; also the batch in which the test split is scored. Of large images it is fewer: those in
#: this many bytes, for a network's own arrays are a hundred times as large.
LARGE, LARGE_BYTES = 1000, 8 * 2**20
#: Batch sizes that are tried: each up to the first number, where a server's requests are, and so many random ones.
SMALL_SIZES, RANDOM_SIZES = 16, 8
#: Calls of one image each for the latency: the 99th percentile then has two beyond it.
CALLS = 200
#: Largest file that this process may write; its own log is one.
FILE_BYTES = 16 * 2**20


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Signatures of a model. The second is what TensorFlow writes for its loader.
SIGNATURES = names("serving_default __saved_model_init_op")
#: Operations that pass the rule of ``computes`` and still must not be there: they change a tensor in place, which may
#: be a variable's, or draw numbers from a state of their own.
NOT_PURE = names("InplaceAdd InplaceSub InplaceUpdate FractionalAvgPool FractionalMaxPool")
#: Operations that compute although TensorFlow marks them as stateful or they take a text, a function or a list: they
#: read variables and tables, call functions of the graph, or stop with an error.
COMPUTES_TOO = names(
    """
    ReadVariableOp ResourceGather ResourceGatherNd VariableShape LookupTableFindV2 LookupTableSizeV2
    PartitionedCall StatefulPartitionedCall StatelessCase Case StatelessIf If StatelessWhile While Enter
    Assert CheckNumerics CheckNumericsV2 PreventGradient StatelessRandomGetAlg CudnnRNNV3
    Einsum GatherNd ScatterNd TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterSub TensorScatterUpdate
    DataFormatDimMap DataFormatVecPermute RaggedTensorToTensor
    ImageProjectiveTransformV2 ImageProjectiveTransformV3 ScaleAndTranslate
    EmptyTensorList TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem
    TensorListLength TensorListPopBack TensorListPushBack TensorListReserve TensorListResize TensorListScatterV2
    TensorListSetItem TensorListSplit TensorListStack
    VarHandleOp HashTableV2
    """  # the last two name a variable or a table, and write nothing
)
LOADS = names("AssignVariableOp VarIsInitializedOp LookupTableImportV2")
RESTORES = names("RestoreV2") | LOADS
SAVES = names("SaveV2 MergeV2Checkpoints ShardedFilename DisableCopyOnRead StaticRegexFullMatch StringJoin") | LOADS
#: What a graph's parts may do beside computing, by when they run.
PARTS = {"inference": names(""), "loading": LOADS, "restoring": RESTORES, "saving": SAVES}
#: What kind of operation a refused one is, by the first pattern that its name matches; for people to read.
CATEGORIES = {
    "Python": "PyFunc",
    "print": "Print|Summary|Debug|DumpTensor",
    "network": "Rpc|Send|Recv|Remote|Collective|Nccl|DataService|Distributed|Session",
    "file": "File|Reader|Save|Restore|Checkpoint|ImmutableConst|Dataset|Proto|Remap|RecordInput|LMDB|Sql",
    "random number": "Random|Stateful|Multinomial|Normal|Sample|Fractional|Rng|Shuffle",
    "stateful write": "Assign|Scatter|Insert|Import|Apply|Inplace|Queue|Stack|Stage|Barrier|Table|Update|Variable",
}
#: By what names the objects of a model hold the functions that only loading calls.
LOADING_FUNCTIONS = names("_create_resource _initialize _destroy_resource")


request: dict[str, Any] = {}


class RefusedError(Exception):
    """The model must not be served, and why."""


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise RefusedError(reason)


def first_line(error: BaseException) -> str:
    """The first line that says something; TensorFlow's begin with a heading."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and line != "Graph execution error:"), type(error).__name__)


def check_isolation() -> str:
    found = [name for name in request["must_not_import"] if importlib.util.find_spec(name)]
    require(
        not found,
        f"this process could import {', '.join(found)}, so it proves nothing about a server that can't",
    )
    return "no code of the project can be imported"


def check_digests(folder: Path, expected: str | None) -> str:
    sums = folder / request["digests"]
    listed = dict(reversed(line.split("  ", 1)) for line in sums.read_text().splitlines())
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    present.discard(request["digests"])
    require(not (lost := listed.keys() - present), f"{min(lost, default='')} is missing")
    require(not (foreign := present - listed.keys()), f"{min(foreign, default='')} does not belong to the model")
    for name, digest in listed.items():
        received = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        require(received == digest, f"{name} was changed: expected SHA-256 {digest}, received {received}")
    if expected:
        require(
            hashlib.sha256(sums.read_bytes()).hexdigest() == expected,
            "its list of digests is not the exported one",
        )
    return f"{len(listed)} files have their SHA-256"


def computes(op: str) -> bool:
    """Whether an operation turns tensors into tensors and can do nothing else.

    It can't where TensorFlow says that it has no state, where all that goes in and out are numbers, handed over by
    value, and where no setting is free text: whatever reads a file, talks to a server or calls Python needs a name for
    it, and whatever writes to a variable or a table needs a handle.
    """
    definition = op_def_registry.get(op)
    if op in COMPUTES_TOO:
        return True
    if definition is None or definition.is_stateful or op in NOT_PURE or op.startswith("_"):
        return False
    handles = (types_pb2.DT_STRING, types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT)
    return not any(
        each.is_ref or each.type in handles for each in (*definition.input_arg, *definition.output_arg)
    ) and (
        not any(
            "func" in each.type or ("string" in each.type and not each.HasField("allowed_values"))
            for each in definition.attr
        )
    )


def category(op: str) -> str:
    if op_def_registry.get(op) is None:
        return "unknown"
    return next((kind for kind, pattern in CATEGORIES.items() if re.search(pattern, op)), "other")


class Graph:
    """The nodes and functions of a saved model, as its file lists them."""

    def __init__(self, graph: Any) -> None:
        self.nodes = {node.name: node for node in graph.node}
        self.functions = {function.signature.name: function for function in graph.library.function}
        require(
            len(self.nodes) == len(graph.node) and len(self.functions) == len(graph.library.function),
            "two nodes or functions of its graph have the same name",
        )
        for name in self.functions:
            require(op_def_registry.get(name) is None, f"a function of its graph has the name of the operation {name}")

    def called(self, nodes: Iterable[Any]) -> Iterator[str]:
        """Functions that nodes call: by their own name, or by any of their settings."""
        for node in nodes:
            yield node.op
            for value in node.attr.values():
                yield from (each.name for each in (value.func, *value.list.func) if each.name)

    def reached(self, nodes: Iterable[str], functions: Iterable[str] = ()) -> tuple[set[str], set[str]]:
        """The nodes that these nodes need, and the functions that both call, to any depth."""
        needed: set[str] = set()
        waiting = [name.removeprefix("^").partition(":")[0] for name in nodes]
        while waiting:
            name = waiting.pop()
            if name in self.nodes and name not in needed:
                needed.add(name)
                waiting += [each.removeprefix("^").partition(":")[0] for each in self.nodes[name].input]
        waiting, called = [*functions, *self.called(self.nodes[name] for name in needed)], set[str]()
        while waiting:
            name = waiting.pop()
            if name in self.functions and name not in called:
                called.add(name)
                waiting += self.called(self.functions[name].node_def)
        return needed, called


def read_graph(folder: Path) -> Any:
    """The one graph that a saved model's file describes, parsed and neither loaded nor run."""
    for name in ("saved_model.cpb", "saved_model.pbtxt"):
        require(
            not (folder / name).exists(), f"it must be one saved_model.pb, and there is {name}, which may be loaded"
        )
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    except Exception as error:
        raise RefusedError(f"saved_model.pb can't be parsed: {first_line(error)}") from error
    require(len(saved.meta_graphs) == 1, f"saved_model.pb must hold one graph, received {len(saved.meta_graphs)}")
    return saved.meta_graphs[0]


def check_graph(folder: Path) -> str:
    """Refuse a graph that can do more than compute, before anything of it runs; loading it would run some."""
    meta = read_graph(folder)
    extra = sorted(meta.signature_def.keys() - SIGNATURES)
    require(not extra, f"signatures beyond serving_default must not be there, received {', '.join(extra)}")
    graph, objects = Graph(meta.graph_def), meta.object_graph_def
    loading = {
        name
        for node in objects.nodes
        for child in node.children
        if child.local_name in LOADING_FUNCTIONS
        for name in objects.nodes[child.node_id].function.concrete_functions
    }
    # A function that names an interface may take the place of another with the same one when the graph is optimized.
    swapped = {name for name, function in graph.functions.items() if "api_implements" in function.attr}
    outputs = [each.name for each in meta.signature_def["serving_default"].outputs.values()]
    saver = meta.saver_def
    served = graph.reached(outputs, (objects.concrete_functions.keys() - loading) | swapped)
    restoring, saving = graph.reached([saver.restore_op_name]), graph.reached([saver.save_tensor_name])
    started = [each.name for each in meta.signature_def["__saved_model_init_op"].outputs.values()]
    others = graph.reached([*started, *(graph.nodes.keys() - restoring[0] - saving[0])], loading)

    def part_of(index: int, name: str) -> str:
        if name in served[index]:
            return "inference"
        if name in others[index]:
            return "loading"
        return "restoring" if name in restoring[index] else "saving" if name in saving[index] else "loading"

    parts = [(part_of(0, name), [node]) for name, node in graph.nodes.items()]
    parts += [(part_of(1, name), function.node_def) for name, function in graph.functions.items()]
    known = {op: computes(op) for _, nodes in parts for op in {node.op for node in nodes}}
    for part, nodes in parts:
        for node in nodes:
            allowed = known[node.op] or node.op in graph.functions or node.op in PARTS[part]
            require(
                allowed,
                f"its graph must do nothing but compute, and at {part} it has the {category(node.op)} operation "
                f"{node.op} ({node.name[:100]})",
            )
    return f"all {sum(len(nodes) for _, nodes in parts)} operations compute, load or save the model, and nothing else"


class Model:
    """A loaded model, of which TensorFlow knows two ways to answer, from different parts of its file.

    Python programs call the function among its objects; TensorFlow Serving runs the nodes that the signature names,
    with variables that the graph itself restored. What ships must answer the same in both ways, or it would be verified
    in one and served in the other: every batch goes the way that chance decides.
    """

    def __init__(self, folder: Path) -> None:
        self.graph = check_graph(folder)
        began = time.perf_counter()
        try:
            self.loaded = tf.saved_model.load(str(folder))
            self.load_seconds = time.perf_counter() - began
            session = tf.compat.v1.Session(graph=tf.Graph())
            described = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def
        except Exception as error:
            raise RefusedError(f"tf.saved_model.load fails: {first_line(error)}") from error
        for names in (self.loaded.signatures, described):
            require("serving_default" in names, f"signature serving_default is missing: {list(names)}")
        self.signature, self.described = self.loaded.signatures["serving_default"], described["serving_default"]
        self.session = session

    def check_contract(self, contract: dict[str, Any]) -> str:
        """Both descriptions of the signature must be the contract's."""
        shape, classes = (None, *contract["image_shape"]), len(contract["classes"])
        given = {
            "probabilities": tf.TensorSpec((None, classes), tf.float32),
            "class_id": tf.TensorSpec((None,), tf.int64),
        }
        for kind, expected, received, nodes in (
            (
                "input",
                {"images": tf.TensorSpec(shape, tf.uint8)},
                self.signature.structured_input_signature[1],
                self.described.inputs,
            ),
            ("output", given, self.signature.structured_outputs, self.described.outputs),
        ):
            served = {
                name: tf.TensorSpec(tf.TensorShape(node.tensor_shape), tf.as_dtype(node.dtype))
                for name, node in nodes.items()
            }
            for found in (received, served):
                require(
                    expected.keys() == found.keys(),
                    f"the signature's {kind}s must be {sorted(expected)}, received {sorted(found)}",
                )
                for name, spec in expected.items():
                    same = found[name].dtype == spec.dtype and found[name].shape.is_compatible_with(spec.shape)
                    require(same, f"{kind} {name} must be {spec.dtype.name} {spec.shape}, received {found[name]}")
        names = [self.described.outputs[name].name for name in ("probabilities", "class_id")]
        self.run = self.session.make_callable(names, [self.described.inputs["images"].name])
        return f"images uint8 {shape} to probabilities float32 and class_id int64 of {classes} classes"

    def answer(self, images: np.ndarray, served: bool) -> np.ndarray:
        """Probabilities ``(images, classes)``, with what must hold for any answer; ``served``: as Serving would."""
        try:
            if served:
                probabilities, class_id = self.run(images)
            else:
                result = self.signature(images=tf.constant(images))
                probabilities, class_id = result["probabilities"].numpy(), result["class_id"].numpy()
        except Exception as error:
            raise RefusedError(f"a batch of {len(images)} fails: {first_line(error)}") from error
        require(len(probabilities) == len(images) == len(class_id), "answers and images differ in number")
        require(bool(np.isfinite(probabilities).all()), "a probability is not a finite number")
        require(bool(np.abs(probabilities.sum(axis=-1) - 1).max() < TOLERANCE), "probabilities do not sum to 1")
        chosen = np.take_along_axis(probabilities, class_id.clip(0, probabilities.shape[1] - 1)[:, None], axis=-1)[:, 0]
        # Two classes may be as probable as each other in float32, and not have been as logits.
        most = bool((chosen >= probabilities.max(axis=-1) - TOLERANCE).all())
        require(most, "class_id is not the most probable class")
        return np.asarray(probabilities)

    def answer_all(self, images: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """The answers to a whole split, in batches of random sizes, at random places, in a random order."""
        most, cuts = large(images), [0]
        while cuts[-1] < len(images):
            cuts.append(min(len(images), cuts[-1] + int(chance.integers(-(-most // 2), most, endpoint=True))))
        answers: np.ndarray | None = None
        for index in chance.permutation(len(cuts) - 1):
            rows = chance.permutation(np.arange(cuts[index], cuts[index + 1]))
            part = self.answer(images[rows], served=bool(chance.integers(2)))
            if answers is None:
                answers = np.empty((len(images), *part.shape[1:]), part.dtype)
            answers[rows] = part
        assert answers is not None
        return answers


def large(images: np.ndarray) -> int:
    return max(1, min(LARGE, LARGE_BYTES // images[:1].nbytes))


def compare(expected: np.ndarray, received: np.ndarray, what: str) -> float:
    """The largest difference between two sets of probabilities, refused above the tolerance."""
    require(
        expected.shape == received.shape,
        f"{what}: expected shape {expected.shape}, received {received.shape}",
    )
    difference = float(np.abs(expected - received).max())
    require(
        difference <= TOLERANCE,
        f"{what}: answers differ by {difference:.2g} from those of the trained model, where {TOLERANCE} is allowed",
    )
    return difference


def check_golden(model: Model, golden: dict[str, np.ndarray], what: str = "golden examples") -> str:
    difference = max(
        compare(golden["probabilities"], model.answer(golden["images"], served), what) for served in (False, True)
    )
    return f"{len(golden['images'])} {what} answer the same (largest difference {difference:.1e})"


def check_batches(model: Model, golden: dict[str, np.ndarray], chance: np.random.Generator) -> str:
    """An answer must not depend on the size of the batch, nor on the images beside it."""
    images, most = golden["images"], large(golden["images"])
    small = range(1, min(SMALL_SIZES, most) + 1)
    for size in (*small, most, *chance.integers(1, most, RANDOM_SIZES, endpoint=True).tolist()):
        rows = chance.integers(len(images), size=size)
        received = model.answer(images[rows], served=bool(chance.integers(2)))
        compare(golden["probabilities"][rows], received, f"batch of {size}")
    return f"batches of 1 to {small[-1]}, of {RANDOM_SIZES} random sizes, and of {most} answer the same"


def score_test(model: Model, chance: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """Score every test example with the model that ships; its answers must be the evaluation's."""
    images, labels = test_split()
    expected = np.load(request["predictions"], allow_pickle=False)
    received = model.answer_all(images, chance)
    difference = compare(expected, received, "test split")
    # Two classes within the tolerance of each other are a tie that rounding may break either way.
    top = np.sort(expected, axis=-1)
    clear = top[:, -1] - top[:, -2] > 2 * TOLERANCE
    same = expected.argmax(axis=-1) == received.argmax(axis=-1)
    require(bool(same[clear].all()), "test split: a predicted class is not the evaluation's")
    detail = f"all {len(labels)} test examples answer as in the evaluation (largest difference {difference:.1e})"
    return detail, {"max_difference": difference, "ties": int((~clear).sum()), **count(labels, received)}


def count(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """What decides about a model: examples, right answers and answers of each class."""
    predicted, classes = probabilities.argmax(axis=-1), probabilities.shape[-1]
    right = predicted == labels
    each = {"examples": labels, "right": labels[right], "predicted": predicted}
    counts = {f"class_{what}": np.bincount(of, minlength=classes).tolist() for what, of in each.items()}
    return {"test_examples": len(labels), "test_accuracy": float(right.mean()), **counts}


def test_split() -> tuple[np.ndarray, np.ndarray]:
    images = np.load(request["test_images"], mmap_mode="r", allow_pickle=False)
    return images, np.load(request["test_labels"], allow_pickle=False)


def score_again(model: Model, golden: dict[str, np.ndarray], chance: np.random.Generator) -> str:
    """After all those calls, the model must still answer as before."""
    detail = check_golden(model, golden, "golden examples, asked again at the end,")
    if "test_images" in request:
        images, _ = test_split()
        expected = np.load(request["predictions"], mmap_mode="r", allow_pickle=False)
        rows = np.sort(chance.choice(len(images), min(large(images), len(images)), replace=False))
        received = model.answer(images[rows], served=bool(chance.integers(2)))
        compare(np.asarray(expected[rows]), received, "test examples, asked again at the end")
    return detail


def measure_latency(image: np.ndarray, *models: Model) -> list[dict[str, float]]:
    """Milliseconds of one image, for each of the models, called in turn."""
    tensor = tf.constant(image)
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(CALLS):
        for model, taken in zip(models, seconds, strict=True):
            began = time.perf_counter()
            model.signature(images=tensor)["probabilities"].numpy()
            taken.append(time.perf_counter() - began)
    found = [np.percentile(taken, [50, 99]) * 1000 for taken in seconds]
    return [{"latency_p50_ms": float(p50), "latency_p99_ms": float(p99)} for p50, p99 in found]


def read_contract(folder: Path) -> dict[str, Any]:
    contract: dict[str, Any] = json.loads((folder / request["digests"]).with_name("contract.json").read_text())
    return contract


def verify() -> dict[str, Any]:
    folder, chance = Path(request["saved_model"]), np.random.default_rng(request["seed"])
    checks = {"isolation": check_isolation(), "digests": check_digests(folder, request.get("export_digest"))}
    contract = read_contract(folder)
    with np.load((folder / request["digests"]).with_name("golden.npz"), allow_pickle=False) as archive:
        golden = dict(archive)
    model = Model(folder)
    checks["graph"] = model.graph
    checks["contract"] = model.check_contract(contract)
    checks["golden"] = check_golden(model, golden)
    checks["batches"] = check_batches(model, golden, chance)
    figures: dict[str, Any] = {"load_seconds": model.load_seconds, "tensorflow": tf.__version__}
    if "test_images" in request:
        checks["test_split"], scored = score_test(model, chance)
        figures |= scored
    figures |= measure_latency(golden["images"][:1], model)[0]
    checks["again"] = score_again(model, golden, chance)
    require(
        all(math.isfinite(value) for value in figures.values() if isinstance(value, float)),
        "a figure is missing",
    )
    checks["isolation"] = check_isolation()  # still so, now that the model is loaded
    return {"checks": checks, "seed": request["seed"], **figures}


def compare_with_champion() -> dict[str, Any]:
    """Both models as they ship, on the same test examples: where each is right, and how fast.

    What goes wrong with the challenger, or with the examples, is raised; only the champion's own faults make the two
    not comparable, for a gate may publish then.
    """
    folder, theirs, chance = (
        Path(request["saved_model"]),
        Path(request["champion"]),
        np.random.default_rng(request["seed"]),
    )
    images, labels = test_split()
    contract, challenger = read_contract(folder), Model(folder)
    challenger.check_contract(contract)
    predicted = challenger.answer_all(images, chance).argmax(axis=-1)
    try:
        check_digests(theirs, None)
        other = read_contract(theirs)
        for what, name in (("image_shape", "images"), ("classes", "classes")):
            require(
                contract[what] == other[what],
                f"it is for {name} {other[what]}, and the challenger for {contract[what]}",
            )
        champion = Model(theirs)
        champion.check_contract(other)
        their_predicted = champion.answer_all(images, chance).argmax(axis=-1)
    except Exception as error:  # whatever is wrong with it
        return {"not_comparable": " ".join(str(error).split())}
    they_right, we_right = their_predicted == labels, predicted == labels
    latencies = measure_latency(np.asarray(images[:1]), champion, challenger)
    sides = {}
    for side, right, latency in zip(("champion", "challenger"), (they_right, we_right), latencies, strict=True):
        recalls = {name: float(right[labels == name].mean()) for name in np.unique(labels).tolist()}
        worst = min(recalls, key=lambda name: recalls[name])
        sides[side] = {
            "accuracy": float(right.mean()),
            "lowest_recall": recalls[worst],
            "lowest_class": contract["classes"][worst],
            **latency,
        }
    return {
        **sides,
        "both_right": int((we_right & they_right).sum()),
        "only_challenger": int((we_right & ~they_right).sum()),
        "only_champion": int((they_right & ~we_right).sum()),
        "both_wrong": int((~we_right & ~they_right).sum()),
    }


def set_limits() -> None:
    """Let no model fill the disk or take more memory than the machine has.

    The limit is on data, not on addresses: TensorFlow reserves many times what it uses, and images are mapped.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, FILE_BYTES), (resource.RLIMIT_CORE, 0))
    for which, wanted in limits:
        hard = resource.getrlimit(which)[1]
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (most, most))


def main() -> None:
    set_limits()
    tf.get_logger().setLevel("ERROR")
    with os.fdopen(int(sys.argv[1]), "w") as answers, os.fdopen(os.dup(0)) as requests:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for line in requests:  # until whoever asks has gone
            request.clear()
            request.update(json.loads(line))
            try:
                report = compare_with_champion() if "champion" in request else verify()
            except RefusedError as refusal:
                report = {"refused": str(refusal)}
            except Exception as error:
                traceback.print_exc()
                report = {"refused": f"verification fails: {type(error).__name__}: {first_line(error)}"}
            answers.write(json.dumps({**report, "nonce": request["nonce"]}) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
