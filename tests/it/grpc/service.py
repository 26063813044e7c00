"""A service of gRPC in clear, without generated code: `service.py PORT`."""

import signal
import sys
from concurrent import futures

import grpc


def unary(request, context):
    context.send_initial_metadata((("x-initial", "yes"),))
    context.set_trailing_metadata((("x-trailing", "yes"), ("some-bin", b"\x00\x01")))
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: é")
    return b"re:" + request


def count(request, _):
    for number in range(int(request)):
        yield b"%d" % number


def add_up(requests, _):
    return b"%d" % sum(len(request) for request in requests)


def talk(requests, _):
    for request in requests:
        if request == b"stop":
            return
        yield b"re:" + request


METHODS = {
    "/test.Test/Unary": grpc.unary_unary_rpc_method_handler(unary),
    "/test.Test/Count": grpc.unary_stream_rpc_method_handler(count),
    "/test.Test/AddUp": grpc.stream_unary_rpc_method_handler(add_up),
    "/test.Test/Talk": grpc.stream_stream_rpc_method_handler(talk),
}


class Handler(grpc.GenericRpcHandler):
    def service(self, call):
        return METHODS.get(call.method)


server = grpc.server(futures.ThreadPoolExecutor(150))
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port("127.0.0.1:" + sys.argv[1])
server.start()
signal.signal(signal.SIGTERM, lambda *_: server.stop(1))
server.wait_for_termination()
