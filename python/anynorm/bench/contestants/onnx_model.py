# SPDX-License-Identifier: Apache-2.0
"""A model of one ONNX operator, run by onnxruntime on the same memory."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from anynorm.bench.arena import Arena, Array
from anynorm.bench.contestants.base import Call, Contestant, Skipped, want_axes, want_dense
from anynorm.bench.expression import EPS
from anynorm.bench.shapes import Case

OPSETS = {"GroupNormalization": 21, "RMSNormalization": 23}  # the first that have them as they are now
OPSET = 17  # of the others
IR_VERSION = 10


class OnnxModel(Contestant):
    """The result goes to an array that is there already."""

    name = "onnxruntime"
    title = "onnxruntime"

    def __init__(self) -> None:
        """Import onnx, which writes the models, and onnxruntime, which runs them."""
        self._onnx: Any = importlib.import_module("onnx")
        self._helper: Any = importlib.import_module("onnx.helper")
        self._runtime: Any = importlib.import_module("onnxruntime")
        self._runtime.set_default_logger_severity(4)  # a refusal comes back as an exception, once is enough
        self.version = self._runtime.__version__

    def call(self, case: Case, arena: Arena, threads: int) -> Call:
        """Build the model, and bind its input and output to x and y."""
        want_axes(case)
        want_dense(case)
        if case.backward:
            raise Skipped("ONNX has no operators for gradients")
        if case.fused:
            raise Skipped("ONNX has no operator that does more than the norm")
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads
        model = self._model(case, arena).SerializeToString()
        session = self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        value = self._runtime.OrtValue.ortvalue_from_numpy
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", value(arena.x))
        y = value(arena.y)
        binding.bind_ortvalue_output("y", y)
        run = partial(session.run_with_iobinding, binding)

        def run_for_y() -> Any:
            run()
            return y

        return run_for_y

    def arrays(self, case: Case, result: Any) -> tuple[Array, ...]:
        """Look at the bound memory."""
        del case
        return (result.numpy(),)

    def _model(self, case: Case, arena: Arena) -> Any:
        """Write the model of a case, with its parameters as constants."""
        operator, attributes = self._operator(case)
        operands = {"weight": arena.weight, "bias": arena.bias, "mean": arena.mean, "var": arena.var}
        if case.kind == "rms_norm":
            del operands["bias"]
        if case.kind != "batch_norm":
            del operands["mean"], operands["var"]
        make = self._helper
        element = make.np_dtype_to_tensor_dtype(arena.x.dtype)
        constants = [
            self._onnx.numpy_helper.from_array(operand.astype(arena.x.dtype), name)
            for name, operand in operands.items()
        ]
        x, y = (make.make_tensor_value_info(name, element, case.shape) for name in "xy")
        node = make.make_node(operator, ["x", *operands], ["y"], epsilon=EPS, **attributes)
        graph = make.make_graph([node], case.kind, [x], [y], constants)
        return make.make_model(
            graph, opset_imports=[make.make_opsetid("", OPSETS.get(operator, OPSET))], ir_version=IR_VERSION
        )

    @staticmethod
    def _operator(case: Case) -> tuple[str, dict[str, Any]]:
        """Choose the operator and its attributes."""
        if case.kind == "moments":
            raise Skipped("ONNX has no operator for moments")
        if case.kind == "layer_norm":
            return "LayerNormalization", {"axis": -1}
        if case.kind == "rms_norm":
            return "RMSNormalization", {"axis": -1}
        if case.channel != 1:
            raise Skipped("ONNX has the channels on axis 1")
        if case.kind == "group_norm":
            return "GroupNormalization", {"num_groups": case.groups}
        if case.kind == "instance_norm":
            return "InstanceNormalization", {}
        if case.training:
            raise Skipped("batch norm is for inference there")
        return "BatchNormalization", {}
