"""A server and a client of gRPC by grpcio, for the cases in grpc.rs. Messages are plain bytes.

usage: echo_grpc.py serve            prints its port, serves until standard input ends
       echo_grpc.py call HOST:PORT   makes calls of all four kinds, prints "done"
"""
import sys
import time
from concurrent import futures

import grpc

SERVICE = "test.Echo"
OPTIONS = [("grpc.enable_http_proxy", 0)]


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-trailing", "t"), ("x-raw-bin", b"\x00\xff")))
    context.send_initial_metadata((("x-initial", metadata.get("x-asked", "none")),))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ü")
    if request == b"deadline":
        return str(context.time_remaining()).encode()
    if request == b"slow":
        time.sleep(30)
    return request[::-1]


def server_stream(request, context):
    for index in range(int(request)):
        yield b"%d" % index


def client_stream(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield request.upper()


def health(request, context):
    # A HealthCheckRequest has one field, the name of the service.
    states = {b"": 1, b"test.Echo": 1, b"test.Resting": 2}
    state = states.get(request[2:])
    if state is None:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return bytes((0x08, state))


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(8), options=OPTIONS)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    checks = {"Check": grpc.unary_unary_rpc_method_handler(health)}
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler(SERVICE, handlers),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", checks),
    ))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


def fails(call, code):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        return error
    raise AssertionError(f"expected {code}")


def call(address):
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        echo = channel.unary_unary(f"/{SERVICE}/Unary")
        for size in (0, 1, 1000, 100_000, 3_000_000):
            message = bytes(index % 251 for index in range(size))
            assert echo(message, timeout=20) == message[::-1], size
        answer, done = echo.with_call(b"abc", timeout=10, metadata=(("x-asked", "a b"),))
        assert answer == b"cba" and done.code() == grpc.StatusCode.OK
        assert dict(done.initial_metadata())["x-initial"] == "a b"
        trailing = dict(done.trailing_metadata())
        assert trailing["x-trailing"] == "t" and trailing["x-raw-bin"] == b"\x00\xff", trailing

        error = fails(lambda: echo(b"fail", timeout=10), grpc.StatusCode.FAILED_PRECONDITION)
        assert error.details() == "not now: ü", error.details()
        left = float(echo(b"deadline", timeout=7))
        # grpcio rounds it up.
        assert 5 < left < 7.5, left
        fails(lambda: echo(b"slow", timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED)

        numbers = list(channel.unary_stream(f"/{SERVICE}/ServerStream")(b"1000", timeout=20))
        assert numbers == [b"%d" % index for index in range(1000)]
        total = channel.stream_unary(f"/{SERVICE}/ClientStream")((b"x" * 1000 for _ in range(1000)), timeout=20)
        assert total == b"1000000", total

        # Each message waits for the answer to the one before: nothing on the way may hold one back.
        answers = []

        def requests():
            for index in range(100):
                while len(answers) < index:
                    time.sleep(0.001)
                yield b"message %d" % index

        for answer in channel.stream_stream(f"/{SERVICE}/Both")(requests(), timeout=20):
            answers.append(answer)
        assert answers == [b"MESSAGE %d" % index for index in range(100)]

        fails(lambda: channel.unary_unary(f"/{SERVICE}/None")(b"", timeout=10), grpc.StatusCode.UNIMPLEMENTED)
        # What follows is the gateway's own: an upstream that is not there, no route, an upstream that is silent.
        fails(lambda: channel.unary_unary("/test.Gone/Unary")(b"", timeout=10), grpc.StatusCode.UNAVAILABLE)
        error = fails(lambda: channel.unary_unary("/test.Nothing/Unary")(b"", timeout=10), grpc.StatusCode.UNIMPLEMENTED)
        assert error.details() == "Nothing is served at this target.", error.details()
        fails(lambda: channel.unary_unary("/test.Slow/Unary")(b"slow", timeout=20), grpc.StatusCode.DEADLINE_EXCEEDED)
    print("done")


if sys.argv[1] == "serve":
    serve()
else:
    call(sys.argv[2])
