"""What a model's graph may do: compute, and load or save the model. Its file is parsed, and neither loaded nor run."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry  # the only place that says what an operation may do

from .refusal import RefusedError, first_line, require


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Signatures of a model, of which the first must be there. The last name is that of what TensorFlow writes for its
#: loader.
SIGNATURES, INIT = names("serving_default image_bytes pixels embedding"), "__saved_model_init_op"
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
#: Operations on texts that compute: each cuts, compares, joins or decodes the bytes that it is given. `DecodeImage`
#: isn't one of them: of a WebP with several frames it writes more than it has room for.
COMPUTES_ON_TEXT = names(
    """
    Substr StringLength StringJoin DecodeRaw DecodePaddedRaw StaticRegexReplace RegexReplace StaticRegexFullMatch
    RegexFullMatch StringToNumber ExtractJpegShape DecodeJpeg DecodePng DecodeGif DecodeBmp DecodeWebP
    """
)
LOADS = names("AssignVariableOp VarIsInitializedOp LookupTableImportV2")
RESTORES = names("RestoreV2") | LOADS
SAVES = names("SaveV2 MergeV2Checkpoints ShardedFilename DisableCopyOnRead") | LOADS
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


def computes(op: str) -> bool:
    """Whether an operation turns tensors into tensors and can do nothing else.

    It can't where TensorFlow says that it has no state, where all that goes in and out are numbers, handed over by
    value, and where no setting is free text: whatever reads a file, talks to a server or calls Python needs a name for
    it, and whatever writes to a variable or a table needs a handle.
    """
    definition = op_def_registry.get(op)
    if op in COMPUTES_TOO or op in COMPUTES_ON_TEXT:
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
    extra = sorted(meta.signature_def.keys() - SIGNATURES - {INIT})
    require(not extra, f"signatures that layerflow doesn't export must not be there, received {', '.join(extra)}")
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
    asked = [each for name, each in meta.signature_def.items() if name != INIT]
    outputs = [each.name for signature in asked for each in signature.outputs.values()]
    saver = meta.saver_def
    served = graph.reached(outputs, (objects.concrete_functions.keys() - loading) | swapped)
    restoring, saving = graph.reached([saver.restore_op_name]), graph.reached([saver.save_tensor_name])
    started = [each.name for each in meta.signature_def[INIT].outputs.values()]
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
