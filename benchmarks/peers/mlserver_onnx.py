"""An ONNX file as a model of MLServer, which has no runtime for it; runs in MLServer's environment."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor

_DATATYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}


class OnnxModel(MLModel):
    """Runs the file that the model's settings name, with one thread."""

    async def load(self) -> bool:
        """Open the file, and say what it takes and gives."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        self.inputs = [_described(each) for each in self._session.get_inputs()]
        self.outputs = [_described(each) for each in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        feeds = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        names = [each.name for each in payload.outputs or self.outputs]
        arrays = self._session.run(names, feeds)
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output(*each) for each in zip(names, arrays, strict=True)],
        )


def _described(tensor: onnxruntime.NodeArg) -> MetadataTensor:
    shape = [dim if isinstance(dim, int) else -1 for dim in tensor.shape]
    return MetadataTensor(name=tensor.name, datatype=_DATATYPES[tensor.type], shape=shape)
