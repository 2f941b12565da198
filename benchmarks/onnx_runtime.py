"""Whether a classifier would predict faster in ONNX Runtime: `python -m benchmarks.onnx_runtime MODEL --data imdb.tgz`.

Needs `pip install onnx onnxruntime`. The encoder of a saved model becomes an ONNX graph (Gather, an LSTM a layer);
pooling and head stay here, on both sides the same. Both read the same numbered reviews with one thread, in turns:
first the probabilities are compared, then CPU seconds of the process are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ulmfit_fastai.predict.text_model import TextModel
from ulmfit_fastai.texts.imdb import load_imdb

PADDING = 1


def onnx_order(gates: np.ndarray) -> np.ndarray:
    """torch's gates i, f, g, o as ONNX has them: i, o, f, g."""
    i, f, g, o = np.split(gates, 4)
    return np.concatenate([i, o, f, g])


def graph_of(model: torch.nn.Module) -> Any:
    """The encoder as an ONNX model: words (length, texts) and lengths (texts,) to the last layer's outputs."""
    from onnx import TensorProto, helper, numpy_helper

    state = {name: value.detach().float().numpy() for name, value in model.state_dict().items()}

    def of(layer: int, part: str) -> np.ndarray:
        return next(value for name, value in state.items() if f"rnns.{layer}." in name and part in name)

    words = next(value for name, value in state.items() if name.endswith("encoder.weight"))
    values, nodes = {"words": words}, [helper.make_node("Gather", ["words", "x"], ["out"])]
    layers = 1 + max(int(name.split("rnns.")[1].split(".")[0]) for name in state if "rnns." in name)
    for n in range(layers):
        bias = np.concatenate([onnx_order(of(n, "bias_ih")), onnx_order(of(n, "bias_hh"))])
        values |= {f"W{n}": onnx_order(of(n, "weight_ih"))[None], f"R{n}": onnx_order(of(n, "weight_hh"))[None],
                   f"B{n}": bias[None], f"axis{n}": np.array([1])}
        into = "out" if n == 0 else f"out{n - 1}"
        nodes += [helper.make_node("LSTM", [into, f"W{n}", f"R{n}", f"B{n}", "lengths"], [f"all{n}", f"last{n}"],
                                   hidden_size=of(n, "weight_hh").shape[1]),
                  helper.make_node("Squeeze", [f"all{n}", f"axis{n}"], [f"out{n}"])]
    given = [helper.make_tensor_value_info("x", TensorProto.INT64, ["length", "texts"]),
             helper.make_tensor_value_info("lengths", TensorProto.INT32, ["texts"])]
    made = [helper.make_tensor_value_info(f"out{layers - 1}", TensorProto.FLOAT, ["length", "texts", None]),
            helper.make_tensor_value_info(f"last{layers - 1}", TensorProto.FLOAT, [1, "texts", None])]
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "encoder", given, made, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def session_of(path: Path) -> Any:
    """ONNX Runtime with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def probabilities(session: Any, head: Any, ids: Sequence[np.ndarray], bs: int = 32) -> np.ndarray:
    """Of numbered texts, longest first, by the encoder in ONNX Runtime with concat pooling and the head from here."""
    found: list[np.ndarray] = [np.empty(0)] * len(ids)
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    for rows in (order[start : start + bs] for start in range(0, len(order), bs)):
        lengths = np.array([len(ids[row]) for row in rows], np.int32)
        x = np.full((lengths.max(), len(rows)), PADDING, np.int64)
        for column, row in enumerate(rows):
            x[: len(ids[row]), column] = ids[row]
        out, last = session.run(None, {"x": x, "lengths": lengths})
        there = (np.arange(len(x))[:, None] < lengths)[..., None]
        pooled = [last[0], np.where(there, out, -np.inf).max(0), (out * there).sum(0) / lengths[:, None]]
        with torch.inference_mode():
            outputs = head.layers(torch.from_numpy(np.concatenate(pooled, 1)).float()).softmax(-1).numpy()
        for row, output in zip(rows, outputs, strict=True):
            found[row] = output
    return np.stack(found)


def compare(folder: Path, texts: list[str], repeats: int) -> dict[str, Any]:
    """Largest difference from our fp32 probabilities, and CPU seconds with their spread, of each side."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model, eights = TextModel.load(folder), TextModel.load(folder, int8=True)
    ids, encoder = model.numbers(texts), model.models["forward"]
    with tempfile.TemporaryDirectory() as place:
        whole, small = Path(place) / "encoder.onnx", Path(place) / "int8.onnx"
        onnx.save(graph_of(encoder), str(whole))
        quantize_dynamic(whole, small, weight_type=QuantType.QInt8)
        sessions = {"ONNX Runtime fp32": session_of(whole), "ONNX Runtime int8": session_of(small)}
    sides: dict[str, Callable[[], np.ndarray]] = {
        "ours fp32": lambda: model.outputs_of_ids(ids, "forward", precision="fp32"),
        "ours bf16": lambda: model.outputs_of_ids(ids, "forward", precision="bf16"),
        "ours int8": lambda: eights.outputs_of_ids(ids, "forward"),
        **{name: lambda session=session: probabilities(session, encoder[1], ids) for name, session in sessions.items()}}
    exact = sides["ours fp32"]()
    off = {name: float(np.abs(side() - exact).max()) for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            started = time.process_time()
            side()
            seconds[name].append(time.process_time() - started)
    return {name: {"off": off[name], "seconds": round(statistics.median(spent), 2),
                   "from": round(min(spent), 2), "to": round(max(spent), 2)} for name, spent in seconds.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a saved model with a forward direction")
    parser.add_argument("--data", type=Path, required=True, help="IMDb, whose test reviews are read")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=4)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    reviews = load_imdb(args.data).df
    texts = reviews[reviews["split"] == "test"]["text"].sample(args.texts, random_state=0).tolist()
    print(json.dumps(compare(args.model, texts, args.repeats), indent=2))


if __name__ == "__main__":
    main()
