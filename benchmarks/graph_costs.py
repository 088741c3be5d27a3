"""What a traced TensorFlow graph costs: the multiply-adds of its products, and the bytes that it holds at once.

Both are read off the graph, so they are the same on every machine; nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import tensorflow as tf


class GraphCostError(ValueError):
    """A graph that can't be counted in full. Names the op, and says why: nothing is left out in silence."""


class Product(NamedTuple):
    """One op that sums products: its name in the graph, its type, and all its multiply-adds (every turn of a loop)."""

    name: str
    kind: str
    multiply_adds: int


def products(graph: tf.Graph, turns: int = 1) -> list[Product]:
    """Every product of `graph`, in order, with those of the functions that it calls and of its loops' bodies.

    A convolution has (values of the result) × (weights behind one of them) multiply-adds, those with the zeros around
    the map included; a matrix product (values of the result) × (length of the summed axis). Ops in WITHOUT_PRODUCTS
    have none: they add, scale, compare, pool, draw or move values, some operations per value. A loop's body counts as
    often as the loop may turn at most, which for `tf.scan` is the length of the series (Keras' LSTM sets no limit).

    Raises GraphCostError for ops of any other type, unknown shapes, and loops without a constant limit.
    """
    found = []
    for op in graph.get_operations():
        if op.type in _PRODUCTS:
            found.append(Product(op.name, op.type, turns * _PRODUCTS[op.type](op)))
        elif op.type in _CALLS:
            found += products(_function(op, "f"), turns)
        elif op.type in _LOOPS:
            found += products(_function(op, "body"), turns * _turns(op))
            found += products(_function(op, "cond"), turns * _turns(op))
        elif op.type not in WITHOUT_PRODUCTS:
            raise GraphCostError(
                f"{op.name}: no rule says how much an op of type {op.type} multiplies; add its type "
                "to _PRODUCTS of benchmarks/graph_costs.py with a rule, or to WITHOUT_PRODUCTS."
            )
    return found


def multiply_adds(graph: tf.Graph) -> int:
    """Sum over `products(graph)`."""
    return sum(product.multiply_adds for product in products(graph))


def peak_bytes(graph: tf.Graph, outputs: Iterable[tf.Tensor]) -> int:
    """The most bytes held at once while `outputs` are computed, the outputs themselves not counted.

    The ops that the outputs need run in the order of the trace. Each gets buffers of its own for its results and gives
    them back when the last op that reads them is done; what only looks at values in another shape shares the buffer of
    its input. Weights, constants and what is fed in are there anyway and not counted, nor is scratch space in kernels.

    Raises GraphCostError for unknown shapes and for loops, whose turns hold an unknown part of what they compute.
    """
    outputs = list(outputs)
    ops = _needed_ops(graph, outputs)
    last_reader = {
        _buffer(tensor).ref(): index
        for index, op in enumerate(ops)
        if op.type not in _SHAPE_READERS
        for tensor in op.inputs
    }
    uncounted = {_buffer(tensor).ref() for tensor in outputs}
    given_back: dict[int, int] = {}
    held = peak = 0
    for index, op in enumerate(ops):
        if op.type in _CALLS or op.type in _LOOPS:
            raise GraphCostError(f"{op.name}: what an op of type {op.type} holds can't be read off the graph.")
        if op.type not in _SHARING and op.type not in _NOT_COMPUTED:
            for tensor in op.outputs:
                if tensor.ref() not in uncounted and tensor.dtype != tf.resource:
                    size = math.prod(_shape(tensor)) * tensor.dtype.size
                    held += size
                    end = last_reader.get(tensor.ref(), index)
                    given_back[end] = given_back.get(end, 0) + size
        peak = max(peak, held)
        held -= given_back.pop(index, 0)
    return peak


def _needed_ops(graph: tf.Graph, outputs: list[tf.Tensor]) -> list[tf.Operation]:
    waiting, needed = [tensor.op for tensor in outputs], set()
    while waiting:
        op = waiting.pop()
        if op not in needed:
            needed.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return [op for op in graph.get_operations() if op in needed]


def _buffer(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor whose buffer holds the values of `tensor`."""
    while tensor.op.type in _SHARING:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def _shape(tensor: tf.Tensor) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise GraphCostError(f"{tensor.name}: its shape {tensor.shape} is not known when traced.")
    return tensor.shape.as_list()


def _convolution(op: tf.Operation) -> int:
    return math.prod(_shape(op.outputs[0])) * math.prod(_shape(op.inputs[1])[:-1])


def _depthwise_convolution(op: tf.Operation) -> int:
    return math.prod(_shape(op.outputs[0])) * math.prod(_shape(op.inputs[1])[:2])


def _matrix_product(op: tf.Operation) -> int:
    transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
    return math.prod(_shape(op.outputs[0])) * _shape(op.inputs[0])[-2 if transposed else -1]


def _einsum(op: tf.Operation) -> int:
    equation = op.get_attr("equation").decode()
    terms = equation.partition("->")[0].split(",")
    if "." in equation or len(terms) != 2:
        raise GraphCostError(f"{op.name}: einsum {equation!r}; expected two operands without an ellipsis.")
    sizes = {letter: size for term, tensor in zip(terms, op.inputs) for letter, size in zip(term, _shape(tensor))}
    return math.prod(sizes.values())


def _turns(op: tf.Operation) -> int:
    """How often a loop turns at most: its second input."""
    limit = tf.get_static_value(op.inputs[1])
    if limit is None or limit < 0:
        raise GraphCostError(f"{op.name}: a loop without a constant limit (maximum_iterations) can't be counted.")
    return int(limit)


def _function(op: tf.Operation, attribute: str) -> tf.Graph:
    # TensorFlow has no public way from an op to the traced graph of the function that it calls.
    return op.graph._get_function(op.get_attr(attribute).name).graph


_PRODUCTS = {
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _depthwise_convolution,
    "MatMul": _matrix_product,
    "BatchMatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "BatchMatMulV3": _matrix_product,
    "Einsum": _einsum,
}
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_LOOPS = ("While", "StatelessWhile")
WITHOUT_PRODUCTS = frozenset(
    """
    Add AddN AddV2 All Any ArgMax AvgPool AvgPool3D BiasAdd BroadcastTo Cast Const ConcatV2 Equal Exp ExpandDims Fill
    FusedBatchNormV3 GatherV2 Greater GreaterEqual Identity IdentityN LeakyRelu Less LessEqual LogicalAnd LogicalNot Max
    MaxPool MaxPool3D Maximum Mean Min Minimum Mul Neg NoOp Pack Pad Placeholder Prod Range Rank ReadVariableOp RealDiv
    Relu Reshape ReverseV2 Rsqrt SelectV2 Shape Sigmoid Size Slice Softmax Split SplitV Sqrt Square SquaredDifference
    Squeeze StopGradient StridedSlice Sub Sum Tanh TensorListFromTensor TensorListGetItem TensorListReserve
    TensorListSetItem TensorListStack Tile Transpose Unpack""".split()
)
# Of the memory: ops whose result is their input's buffer, readers of a shape alone, and what no step computes.
_SHARING = ("ExpandDims", "Identity", "IdentityN", "PreventGradient", "Reshape", "Squeeze", "StopGradient")
_SHAPE_READERS = ("BroadcastGradientArgs", "OnesLike", "Rank", "Shape", "ShapeN", "Size", "ZerosLike")
_NOT_COMPUTED = ("BroadcastGradientArgs", "Const", "Placeholder", "ReadVariableOp")
