"""A trained network as an ONNX file: uint8 images `(batch, height, width, 3)` to float32 logits, which any ONNX runtime computes.

Every layer and operation of the network becomes a few nodes, a recurrent layer one. The file's metadata holds the model's card
under `model.json`, and equal models make equal bytes. Source: https://onnx.ai/onnx/operators/
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from captcha_registry.errors import UserError
from captcha_registry.recognition.card import CARD_NAME
from captcha_registry.recognition.frameworks import keras
from captcha_registry.recognition.trained import load_model

# The oldest that have all that is used: the more programs read it.
OPSET, FORMAT = 18, 8
# Keras has the channels of a picture last, ONNX first.
CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
# Only constants of more numbers take less room in half precision.
MANY = 1_000

Weights = npt.NDArray[np.float32]


class _Graph:
    """The nodes so far. Tensors are known by their names; axes are turned as rarely as may be."""

    def __init__(self, *, half: bool) -> None:
        self.half = half
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        # Of each tensor that is another one with its axes turned, which one and how.
        self.turned: dict[str, tuple[str, tuple[int, ...]]] = {}
        # Of each tensor that is another one with its channels weighted, which one and how.
        self.weighted: dict[str, tuple[str, Weights]] = {}

    def add(self, kind: str, *inputs: str | npt.ArrayLike, **attributes: Any) -> str:
        """Add a node; what is not a name of a tensor is a constant. Return the name of what it computes."""
        names = [value if isinstance(value, str) else self._hold(np.asarray(value)) for value in inputs]
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [name], name=name, **attributes))
        return name

    def _hold(self, value: npt.NDArray[Any]) -> str:
        """Keep a constant; with `half`, the kernels in half the bytes: factors and offsets are few, and may be large."""
        if value.dtype.kind == "f":
            value = value.astype(np.float16 if self.half and value.size > MANY else np.float32)
        name = f"weights_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return self.add("Cast", name, to=TensorProto.FLOAT) if value.dtype == np.float16 else name

    def turn(self, x: str, axes: tuple[int, ...]) -> str:
        """Turn the axes of a tensor; turns after one another are one, or none."""
        source, before = self.turned.get(x, (x, tuple(range(len(axes)))))
        together = tuple(before[axis] for axis in axes)
        if together == tuple(range(len(axes))):
            return source
        name = self.add("Transpose", source, perm=together)
        self.turned[name] = source, together
        return name

    def map_elements(self, kind: str, *inputs: str | float) -> str:
        """Add a node that works element by element; before a turn if all inputs are turned alike, so that it may be undone."""
        turns = [self.turned.get(x) if isinstance(x, str) else None for x in inputs]
        if turns and turns[0] and all(turn and turn[1] == turns[0][1] for turn in turns):
            return self.turn(self.add(kind, *(turn[0] for turn in turns if turn)), turns[0][1])
        return self.add(kind, *(x if isinstance(x, str) else np.float32(x) for x in inputs))

    def on_channels(self, kind: str, x: str, *weights: Weights, **attributes: Any) -> str:
        """Add a node that wants the channels first."""
        return self.turn(self.add(kind, self.turn(x, CHANNELS_FIRST), *weights, **attributes), CHANNELS_LAST)

    def list_needed(self, output: str) -> list[onnx.NodeProto]:
        """List the nodes that an output follows from."""
        needed, nodes = {output}, []
        for node in reversed(self.nodes):
            if node.output[0] in needed:
                needed |= {*node.input}
                nodes.append(node)
        return nodes[::-1]


def convert_model(folder: Path, *, half: bool = False) -> bytes:
    """Convert the trained model in a folder; as `convert_network`.

    Raises:
        UserError: there is no complete model, or it is not made of stock layers.
    """
    network, _ = load_model(folder)
    return convert_network(network, (folder / CARD_NAME).read_text(encoding="utf-8"), half=half)


def convert_network(network: keras.Model, card: str, *, half: bool = False) -> bytes:
    """Convert a network of stock layers.

    Args:
        network: as it was loaded.
        card: the text of its model.json.
        half: keep kernels in float16, which makes the file half as large; computed is in float32 all the same.

    Raises:
        UserError: it has a layer, or an option of one, that is not known here.
    """
    graph = _Graph(half=half)
    # Keras goes through the network as if it computed; it is given names of tensors in place of tensors.
    (output,) = keras.tree.flatten(network._run_through_graph(["images"], partial(_convert, graph)))  # noqa: SLF001 - as above
    graph.nodes.append(helper.make_node("Identity", [output], ["logits"]))
    nodes = graph.list_needed("logits")
    proto = helper.make_graph(
        nodes,
        network.name,
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *network.input_shape[1:]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *network.output_shape[1:]])],
        [weights for weights in graph.weights if any(weights.name in node.input for node in nodes)],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT)
    model.producer_name = "captcha-registry"
    helper.set_model_props(model, {CARD_NAME: card})
    return bytes(model.SerializeToString(deterministic=True))


def _convert(graph: _Graph, operation: keras.Operation) -> Callable[..., str]:
    """Return what adds the nodes of a layer or operation when it is called with its inputs."""
    kind = type(operation).__name__

    def convert(*inputs: Any, **options: object) -> str:
        if (kind not in ELEMENTWISE and kind not in CONVERTERS) or any(value is not None for value in options.values()):
            raise UserError(
                f"the network has {operation.name}, a {kind}; export to ONNX knows only what stock networks are made of"
            )
        if kind in ELEMENTWISE:
            return graph.map_elements(ELEMENTWISE[kind], *keras.tree.flatten(inputs))
        return CONVERTERS[kind](graph, operation, *inputs)

    return convert


def _require(operation: keras.Operation, **expected: object) -> None:
    """Refuse a layer that has other options than those that are converted."""
    for name, value in expected.items():
        if (found := getattr(operation, name)) != value:
            raise UserError(f"{operation.name}: {name} is {found!r}; export to ONNX knows {value!r}")


def _activate(graph: _Graph, operation: keras.Operation, x: str) -> str:
    if operation.activation is keras.activations.linear:
        return x
    _require(operation, activation=keras.activations.relu)
    return graph.map_elements("Relu", x)


def _rescale(graph: _Graph, layer: keras.Layer, x: str) -> str:
    _require(layer, offset=0.0)
    x, scale = graph.add("Cast", x, to=TensorProto.FLOAT), np.asarray(layer.scale, np.float32)
    scaled = graph.add("Mul", x, scale)
    if scale.ndim:
        graph.weighted[scaled] = x, scale
    return scaled


def _crop(graph: _Graph, layer: keras.Layer, x: str) -> str:
    (top, _), (left, _) = layer.cropping
    _, height, width, _ = layer.output.shape
    starts, ends, axes = (np.array(pair, np.int64) for pair in ((top, left), (top + height, left + width), (1, 2)))
    return graph.add("Slice", x, starts, ends, axes)


def _reduce(graph: _Graph, operation: keras.Operation, x: str, *, kind: str) -> str:
    axes = np.atleast_1d(np.array(operation.axis, np.int64))
    if kind == "ReduceSum" and axes.tolist() == [-1] and operation.keepdims and x in graph.weighted:
        # A weighted sum, seven times as fast.
        source, weights = graph.weighted[x]
        return graph.add("MatMul", source, weights[:, None])
    return graph.add(kind, x, axes, keepdims=int(operation.keepdims))


def _concatenate(graph: _Graph, layer: keras.Layer, inputs: list[str]) -> str:
    return graph.add("Concat", *inputs, axis=layer.axis)


def _convolve(graph: _Graph, layer: keras.Layer, x: str) -> str:
    _require(layer, dilation_rate=(1, 1), groups=1, data_format="channels_last")
    kernel, *bias = layer.get_weights()
    x = graph.on_channels("Conv", x, kernel.transpose(3, 2, 0, 1), *bias, strides=layer.strides, auto_pad=_padding(layer))
    return _activate(graph, layer, x)


def _padding(layer: keras.Layer) -> str:
    return {"same": "SAME_UPPER", "valid": "VALID"}[layer.padding]


def _pool(graph: _Graph, layer: keras.Layer, x: str) -> str:
    _require(layer, data_format="channels_last")
    return graph.on_channels("MaxPool", x, kernel_shape=layer.pool_size, strides=layer.strides, auto_pad=_padding(layer))


def _normalize(graph: _Graph, layer: keras.Layer, x: str) -> str:
    _require(layer, axis=-1, center=True, scale=True)
    return graph.on_channels("BatchNormalization", x, *layer.get_weights(), epsilon=layer.epsilon)


def _slope(graph: _Graph, layer: keras.Layer, x: str) -> str:
    (slopes,) = layer.get_weights()
    return graph.on_channels("PRelu", x, slopes.transpose(2, 0, 1))


def _rectify(graph: _Graph, layer: keras.Layer, x: str) -> str:
    _require(layer, max_value=None, negative_slope=0.0, threshold=0.0)
    return graph.map_elements("Relu", x)


def _connect(graph: _Graph, layer: keras.Layer, x: str) -> str:
    kernel, *bias = layer.get_weights()
    x = graph.add("MatMul", x, kernel)
    return _activate(graph, layer, graph.add("Add", x, *bias) if bias else x)


def _reshape(graph: _Graph, layer: keras.Layer, x: str) -> str:
    # 0 is the batch, whatever its size.
    return graph.add("Reshape", x, np.array([0, *layer.output.shape[1:]], np.int64))


def _permute(graph: _Graph, layer: keras.Layer, x: str) -> str:
    return graph.turn(x, (0, *layer.dims))


def _read_both_ways(graph: _Graph, layer: keras.Layer, x: str) -> str:
    """Add a recurrent layer, which wants time first, and gives `(time, direction, batch, units)`."""
    _require(layer, merge_mode="concat", return_sequences=True)
    kind = type(layer.forward_layer).__name__
    if kind not in RECURRENT:
        raise UserError(f"{layer.name}: export to ONNX does not know a {kind}; it knows {' and '.join(RECURRENT)}")
    options, arrange = RECURRENT[kind]
    stacked = []
    for one_way in (layer.forward_layer, layer.backward_layer):
        _require(one_way, activation=keras.activations.tanh, recurrent_activation=keras.activations.sigmoid, use_bias=True)
        stacked.append(arrange(one_way))
    weights = [np.stack(pair) for pair in zip(*stacked, strict=True)]
    units = layer.forward_layer.units
    y = graph.add(kind, graph.turn(x, (1, 0, 2)), *weights, hidden_size=units, direction="bidirectional", **options)
    return graph.add("Reshape", graph.turn(y, (2, 0, 1, 3)), np.array([0, 0, 2 * units], np.int64))


def _arrange_gru(layer: keras.Layer) -> tuple[Weights, Weights, Weights]:
    """Return kernel, recurrent kernel and biases; Keras and ONNX have the gates in one order: update, reset, state."""
    _require(layer, reset_after=True)
    kernel, recurrent, biases = layer.get_weights()
    return kernel.T, recurrent.T, biases.reshape(-1)


def _arrange_lstm(layer: keras.Layer) -> tuple[Weights, Weights, Weights]:
    """Return the same of an LSTM; its gates are input, forget, cell, output in Keras, and input, output, forget, cell in ONNX."""

    def order(of_gates: Weights) -> Weights:
        entry, forget, cell, output = np.split(of_gates.T, 4)
        return np.concatenate([entry, output, forget, cell])

    kernel, recurrent, bias = map(order, layer.get_weights())
    return kernel, recurrent, np.concatenate([bias, np.zeros_like(bias)])


# What each layer and operation of Keras becomes.
ELEMENTWISE = {"Add": "Add", "Minimum": "Min", "Multiply": "Mul", "Subtract": "Sub", "TrueDivide": "Div"}
RECURRENT: dict[str, tuple[dict[str, int], Callable[[keras.Layer], tuple[Weights, Weights, Weights]]]] = {
    "GRU": ({"linear_before_reset": 1}, _arrange_gru),
    "LSTM": ({}, _arrange_lstm),
}
CONVERTERS: dict[str, Callable[..., str]] = {
    "Activation": _activate,
    "BatchNormalization": _normalize,
    "Bidirectional": _read_both_ways,
    "Concatenate": _concatenate,
    "Conv2D": _convolve,
    "Cropping2D": _crop,
    "Dense": _connect,
    "Flatten": _reshape,
    "Max": partial(_reduce, kind="ReduceMax"),
    "MaxPooling2D": _pool,
    "Min": partial(_reduce, kind="ReduceMin"),
    "PReLU": _slope,
    "Permute": _permute,
    "ReLU": _rectify,
    "Rescaling": _rescale,
    "Reshape": _reshape,
    "Sum": partial(_reduce, kind="ReduceSum"),
}
