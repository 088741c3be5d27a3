"""Runs an exported model in another runtime: answer.py openvino|onnx MODEL VIDEO.npy ANSWERS.npz

Needs neither TensorFlow nor this project, and makes sure that it has neither. Writes the outputs by name and
`refusals`: what the runtime says to clips of other shapes, empty where it took them; after each of them the good clips
have to get the same bits again.
"""

from __future__ import annotations

import sys

import numpy as np


def with_openvino(path):
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda video: {output.get_any_name(): value for output, value in compiled({"video": video}).items()}


def with_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda video: dict(zip(names, session.run(None, {"video": video})))


RUNTIMES = {"openvino": with_openvino, "onnx": with_onnx}


def wrong_shapes(video):
    """Like the tests' table of malformed requests, as far as a fixed shape alone can refuse them."""
    return [
        video[:, 1:],
        video[:, [0, *range(video.shape[1])]],
        video[:, :, 1:],
        video[:, :, :, 1:],
        np.concatenate([video, video], axis=-1),
        video[0],
        video[None],
        video.ravel(),
    ]


def refusal(run, video):
    try:
        run(video)
    except Exception as error:  # each runtime has its own
        return str(error) or repr(error)
    return ""


def main(runtime, model, clips, out):
    run, video = RUNTIMES[runtime](model), np.load(clips)
    answers, refusals = run(video), []
    for wrong in wrong_shapes(video):
        refusals.append(refusal(run, wrong))
        again = run(video)
        assert all(np.array_equal(again[name], value) for name, value in answers.items()), "another answer"
    ours = {"tensorflow", "rstg_tf", "datasets"} & {name.partition(".")[0] for name in sys.modules}
    assert not ours, f"imported: {ours}"
    np.savez(out, refusals=np.array(refusals), **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
