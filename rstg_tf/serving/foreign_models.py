"""The gate for SavedModels of others: what a graph could do to files or memory is looked for before it is run.

`saved_model.pb` is read as a protocol buffer, which runs nothing; TensorFlow loads it only after that.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rstg_tf.common.errors import ConfigError
from rstg_tf.common.file_gate import read_bytes, require_inside
from rstg_tf.runs.checkpoint_gate import check_checkpoint

GRAPH_FILE = "saved_model.pb"
LARGEST_GRAPH = 256 << 20  # bytes of saved_model.pb
LARGEST_CONSTANTS = 1 << 30  # bytes of all constants; one number can stand for a whole tensor
LARGEST_EXPANSION = 2_000_000  # nodes, each function counted as often as it is called

# What the exports of `rstg_tf.export` consist of, on both stacks: arithmetic on tensors, control flow, and the model's
# own variables. Nothing here reads or writes files, talks to other machines, calls Python or starts programs.
COMPUTING_OPS = frozenset(
    """
    AddN AddV2 All ArgMax ArgMin Assert AssignVariableOp BatchMatMulV2 BiasAdd Cast Ceil ClipByValue ConcatOffset
    ConcatV2 Const Conv2D Conv3D CudnnRNN CudnnRNNBackprop Cumsum DecodeCompressed DecodeJpeg DecodePaddedRaw DecodePng
    DecodeRaw DenseBincount DisableCopyOnRead DivNoNan EnsureShape Equal ExpandDims ExtractJpegShape Fill FloorDiv
    FloorMod GatherV2 Greater GreaterEqual Identity IdentityN If InvertPermutation LeakyRelu Less LessEqual LogicalAnd
    LogicalNot LogicalOr MatMul Max MaxPool MaxPool3D Maximum Mean Minimum Mul Neg NoOp Pack Pad PartitionedCall
    Placeholder Pow Prod Range ReadVariableOp RealDiv ReduceJoin Relu Reshape ReverseV2 Round Rsqrt ScaleAndTranslate
    Select SelectV2 Shape Sigmoid Size Slice Softmax Split SplitV Square SquaredDifference Squeeze
    StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile StaticRegexFullMatch StopGradient StridedSlice
    StridedSliceGrad StringJoin StringLength StringSplitV2 Sub Substr Sum Tanh TensorListFromTensor TensorListGetItem
    TensorListReserve TensorListSetItem TensorListStack Tile TopKV2 Transpose Unpack VarHandleOp Where While ZerosLike
    """.split()
)
# What reads and writes weights. Only functions that nothing can call from a signature may hold them: TensorFlow saves a
# pair of them in each SavedModel for runtimes of version 1, and does not run them itself.
SAVING_OPS = frozenset("MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename".split())
# Objects that do nothing while they are loaded. Others have functions of their own that would be called.
_OBJECTS = frozenset({"user_object", "variable", "function", "bare_concrete_function", "constant"})
_CLASSES = frozenset(
    {"_generic_user_object", "trackable_list_wrapper", "trackable_dict_wrapper", "signature_map", "tf_module"}
)


def check_saved_model(folder: str | os.PathLike, *, trust: bool = False) -> list[str]:
    """Looks through a SavedModel before it is loaded; returns what was found with `trust`, else nothing.

    Raises ConfigError if it holds ops, objects or sizes that no export of ours has, unless `trust` says to go on; and
    in any case for links out of its folder, files of other kinds that TensorFlow would prefer, and damaged ones.

    Example:
      >>> check_saved_model("exports/demo/1")  # doctest: +SKIP
      []
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    folder = Path(folder)
    require_inside(folder, named=str(folder))
    # Some readers of TensorFlow's take this one where both are there.
    if os.path.lexists(folder / "saved_model.cpb"):
        raise ConfigError(f"{folder}: holds saved_model.cpb; expected a model in {GRAPH_FILE} alone.")
    content = read_bytes(folder / GRAPH_FILE, named=str(folder / GRAPH_FILE), limit=LARGEST_GRAPH)
    try:
        model = saved_model_pb2.SavedModel.FromString(content)
    except DecodeError as error:
        raise ConfigError(f"{folder / GRAPH_FILE} cannot be loaded as a SavedModel ({error}).") from None
    if os.path.lexists(folder / "variables" / "variables.index"):
        check_checkpoint(folder / "variables" / "variables")
    found = list(_findings(model))
    if found and not trust:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise ConfigError(
            f"{folder} holds what no export of this project does: {'; '.join(found[:3])}{more}. It could read and "
            "write files or run programs as you. Give --trust only if you know who made it."
        )
    return found


def _findings(model: Any) -> Iterator[str]:
    """What is unlike our exports, as phrases that name the thing and its place."""
    if len(model.meta_graphs) != 1 or not model.meta_graphs[0].HasField("object_graph_def"):
        yield f"{len(model.meta_graphs)} graph(s) without the objects that TensorFlow 2 saves"
        return
    [graph] = model.meta_graphs
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    callable_ones = _reachable(graph, functions)
    places = [("the graph", graph.graph_def.node, set())]
    for name, function in functions.items():
        allowed = set() if name in callable_ones else SAVING_OPS
        places.append((f"the function {name}", function.node_def, allowed))
    for place, nodes, allowed in places:
        odd: dict[str, str] = {}
        for node in nodes:
            if node.op not in COMPUTING_OPS and node.op not in functions and node.op not in allowed:
                odd.setdefault(node.op, node.name)
        yield from (f"the op {op!r} ({name!r} in {place})" for op, name in odd.items())
    yield from _object_findings(graph)
    yield from _size_findings(graph, functions)


def _references(message: Any) -> Iterator[str]:
    """Names of the functions that the attributes of a node or function point to."""
    for value in message.attr.values():
        if value.HasField("func"):
            yield value.func.name
            yield from _references(value.func)
        for function in value.list.func:
            yield function.name
            yield from _references(function)


def _calls(function: Any) -> Iterator[str]:
    for node in function.node_def:
        yield node.op
        yield from _references(node)
    yield from _references(function)


def _reachable(graph: Any, functions: dict[str, Any]) -> set[str]:
    """Functions that loading, or a call of any function that is handed out, could run."""
    waiting = [*graph.object_graph_def.concrete_functions]
    # TensorFlow exchanges functions of one interface for each other, and calls a function's gradient.
    waiting += [name for name, function in functions.items() if "api_implements" in function.attr]
    library = graph.graph_def.library
    waiting += [gradient.gradient_func for gradient in library.gradient]
    waiting += [gradient.gradient_func for gradient in library.registered_gradients]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in reached:
            reached.add(name)
            waiting.extend(_calls(functions[name]))
    return reached


def _object_findings(graph: Any) -> Iterator[str]:
    if graph.asset_file_def:
        yield f"the asset {graph.asset_file_def[0].filename!r}"
    for number, entry in enumerate(graph.object_graph_def.nodes):
        kind = entry.WhichOneof("kind")
        identifier = entry.user_object.identifier if kind == "user_object" else ""
        if kind not in _OBJECTS or (identifier and identifier not in _CLASSES):
            yield f"an object of the kind {identifier or kind!r} (number {number})"
        elif entry.registered_saver or entry.saveable_objects:
            yield f"an object with a saver of its own (number {number})"


def _size_findings(graph: Any, functions: dict[str, Any]) -> Iterator[str]:
    from tensorflow.python.framework import dtypes

    size = 0
    for nodes in (graph.graph_def.node, *(function.node_def for function in functions.values())):
        for tensor in (node.attr["value"].tensor for node in nodes if node.op == "Const"):
            sides = [dimension.size for dimension in tensor.tensor_shape.dim]
            if any(side < 0 for side in sides):
                yield f"a constant of the shape {sides}"
                return
            try:
                size += math.prod(sides) * max(1, dtypes.as_dtype(tensor.dtype).size)
            except TypeError:
                yield f"a constant of the unknown type {tensor.dtype}"
                return
    if size > LARGEST_CONSTANTS:
        yield f"constants of {size} bytes (expected at most {LARGEST_CONSTANTS})"
    expansion = _expansion(functions)
    if expansion is None or expansion > LARGEST_EXPANSION:
        yield "functions that call themselves" if expansion is None else f"functions that amount to {expansion} nodes"


def _expansion(functions: dict[str, Any]) -> int | None:
    """The largest number of nodes of a function with all that it calls in its place; None if one calls itself."""
    calls: dict[str, list[str]] = {
        name: [called for called in _calls(function) if called in functions] for name, function in functions.items()
    }
    callers, open_calls = defaultdict(list), {}
    for name, called in calls.items():
        open_calls[name] = len(called)
        for other in called:
            callers[other].append(name)
    sizes = {name: len(function.node_def) for name, function in functions.items()}
    ready = [name for name, count in open_calls.items() if not count]
    done = 0
    while ready:
        name, done = ready.pop(), done + 1
        for caller in callers[name]:
            sizes[caller] += sizes[name]
            open_calls[caller] -= 1
            if not open_calls[caller]:
                ready.append(caller)
    return max(sizes.values(), default=0) if done == len(functions) else None
