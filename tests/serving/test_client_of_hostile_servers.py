"""examples/serving_client.py against servers on loopback that misbehave."""

from __future__ import annotations

import contextlib
import http.server
import json
import pathlib
import runpy
import socket
import ssl
import subprocess
import threading
import time

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "examples" / "serving_client.py"
client = runpy.run_path(str(SCRIPT))
ServerError = client["ServerError"]
SHAPE = {"dim": [{"size": str(size)} for size in (-1, 4, 20, 16, 1)]}
METADATA = {"metadata": {"signature_def": {"signature_def": {"serving_default": {"inputs": {"video": {}}}}}}}
METADATA["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["video"]["tensor_shape"] = SHAPE
GOOD = {"outputs": {"classes": [["a", "b"]], "scores": [[0.75, 0.25]], "probabilities": [[0.25, 0.75]]}}


@contextlib.contextmanager
def serving(answer):
    """HOST:PORT of a server whose every answer is the raw bytes that `answer(socket)` sends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65536)
                        answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def sends(content, *, status="200 OK", headers=()):
    """Sends an answer with this body, a value for JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return lambda connection: connection.sendall("\r\n".join(lines).encode() + body)


def rest(name, **changes):
    address = client["Address"](**{"name": name, "timeout": 30.0, "most_bytes": 10_000, **changes})
    return client["SERVERS"]["rest"](address, model="rstg", version=None)


def test_a_good_answer_is_taken():
    with serving(sends(METADATA)) as name:
        assert rest(name).input_shape("serving_default", "video") == [-1, 4, 20, 16, 1]
    with serving(sends(GOOD)) as name:
        answer = rest(name).predict("serving_bytes", {"frames": np.array([[b"a"]], object)})
    assert client["best_classes"](answer, 2, None) == [("a", 0.75), ("b", 0.25)]
    assert client["best_classes"](answer, 1, ["x", "y"]) == [("y", 0.75)]


def drips(head):
    """Sends `head`, then a byte every tenth of a second, for ever."""

    def drip(connection):
        connection.sendall(head)
        while True:
            time.sleep(0.1)
            connection.sendall(b" ")

    return drip


@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{"],
    ids=["before the status", "between headers", "within a header", "within the body"],
)
def test_a_server_that_drips_is_left_when_the_time_is_over(head):
    with serving(drips(head)) as name:
        begin = time.monotonic()
        with pytest.raises(ServerError, match="did not answer within 1 seconds; give a longer --timeout"):
            rest(name, timeout=1.0).input_shape("serving_default", "video")
        assert time.monotonic() - begin < 25  # and not the minutes that the body would take


def floods(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"[" * 2**16)


def test_an_endless_answer_is_read_no_further_than_the_cap():
    with serving(floods) as name:
        with pytest.raises(ServerError, match=r"longer than 10000 bytes \(--max_answer_bytes\)"):
            rest(name).input_shape("serving_default", "video")


def test_of_an_error_no_more_than_its_beginning_is_read_or_told():
    with serving(sends(b"x\x1b[2J\n" * 10**6, status="500 Oh")) as name:
        with pytest.raises(ServerError, match="failed with 500: x") as told:
            rest(name).input_shape("serving_default", "video")
    assert len(str(told.value)) < 500 and "\x1b" not in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_no_request_is_sent_on_to_another_place(status):
    asked = []
    with serving(asked.append) as other:
        with serving(sends({}, status=status, headers=[f"Location: http://{other}/v1/models/rstg"])) as name:
            for ask in (
                lambda: rest(name).input_shape("serving_default", "video"),
                lambda: rest(name).predict("serving_default", {"video": np.zeros([1, 1], np.uint8)}),
            ):
                with pytest.raises(ServerError, match=f"sends to http://{other}/v1/models/rstg, which is not followed"):
                    ask()
    assert not asked


MALFORMED = {
    "no JSON": b"<html>",
    "bytes that are no text": b"\xff\xfe\x00",
    "half an object": b'{"metadata": ',
    "a list": [1],
    "null": None,
    "nested without end": b"[" * 9000,
    "no metadata": {"a": 1},
    "metadata of another kind": {"metadata": 3},
    "signatures as a list": {"metadata": {"signature_def": {"signature_def": ["serving_default"]}}},
    "no inputs": {"metadata": {"signature_def": {"signature_def": {"serving_default": {}}}}},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_metadata_of_another_shape_ends_in_a_sentence(case):
    with serving(sends(MALFORMED[case])) as name:
        with pytest.raises(ServerError, match="cannot be used|has no signature"):
            rest(name).input_shape("serving_default", "video")


@pytest.mark.parametrize(
    "shape", [[], [-1, 4, 20, 16], [-1, -1, 20, 16, 1], [-1, 4, 0, 16, 1], [-1, 4, 20, 16, 2], [1, 10**6, 10**6, 9, 3]]
)
def test_a_clip_that_no_model_takes_is_refused_before_frames_are_made_for_it(shape):
    with pytest.raises(ServerError, match="expected \\[B, T, H, W, C\\] of known sizes"):
        client["clip_of_model"](shape, None)
    assert client["clip_of_model"]([-1, 4, 20, 16, 3], 8).shape == [None, 4, 20, 16, 3]


OUTPUTS = {
    "none": {},
    "another kind": {"outputs": 3},
    "a number": {"outputs": {"probabilities": 1.0}},
    "no classes": {"outputs": {"probabilities": [[]]}},
    "two clips": {"outputs": {"probabilities": [[0.5], [0.5]]}},
    "texts": {"outputs": {"probabilities": [["a", "b"]]}},
    "ragged": {"outputs": {"probabilities": [[0.1], [0.1, 0.2]]}},
    "not a number": b'{"outputs": {"probabilities": [[NaN, 0.5]]}}',
    "names without scores": {"outputs": {"classes": [["a"]], "probabilities": [[0.5]]}},
    "more names than scores": {"outputs": {"classes": [["a", "b"]], "scores": [[0.5]], "probabilities": [[0.5, 0.5]]}},
    "numbers as names": {"outputs": {"classes": [[1]], "scores": [[0.5]], "probabilities": [[0.5]]}},
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_of_another_shape_end_in_a_sentence(case):
    with serving(sends(OUTPUTS[case])) as name:
        with pytest.raises(ServerError, match="cannot be used"):
            answer = rest(name).predict("serving_bytes", {"frames": np.array([[b"a"]], object)})
            client["best_classes"](answer, 1, None)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key) of localhost, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(folder / "key"), "-out", str(folder / "pem")],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"openssl made no certificate: {made.stderr.decode()[-200:]}")
    return folder / "pem", folder / "key"


def test_over_tls_the_certificate_is_verified(certificate):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(METADATA).encode())

        def log_message(self, *told):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        port = server.server_address[1]
        trusted = {"tls": True, "ca_file": str(certificate[0])}
        assert rest(f"localhost:{port}", **trusted).input_shape("serving_default", "video")[1:] == [4, 20, 16, 1]
        for name, changes in ((f"localhost:{port}", {"tls": True}), (f"127.0.0.1:{port}", trusted)):
            with pytest.raises(ServerError, match="(?i)certificate"):
                rest(name, **changes).input_shape("serving_default", "video")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
