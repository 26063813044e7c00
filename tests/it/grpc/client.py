"""Calls every kind of method, and says `all good` at the end: `client.py ADDRESS HOST`."""

import queue
import sys

import grpc

PATIENCE = 60
channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.default_authority", sys.argv[2])])
unary = channel.unary_unary("/test.Test/Unary")
count = channel.unary_stream("/test.Test/Count")
add_up = channel.stream_unary("/test.Test/AddUp")
talk = channel.stream_stream("/test.Test/Talk")


def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("it did not fail")


# A stream is what wakes it, and goes on while all the rest happens.
said = queue.Queue()
talking = talk(iter(said.get, None), timeout=PATIENCE)
for word in (b"a", b"b"):
    said.put(word)
    assert next(talking) == b"re:" + word

answer, call = unary.with_call(b"hello", timeout=PATIENCE)
assert answer == b"re:hello" and call.code() == grpc.StatusCode.OK
assert ("x-initial", "yes") in [tuple(field) for field in call.initial_metadata()]
trailing = [tuple(field) for field in call.trailing_metadata()]
assert ("x-trailing", "yes") in trailing and ("some-bin", b"\x00\x01") in trailing, trailing

assert code(lambda: unary(b"fail", timeout=PATIENCE)) == (grpc.StatusCode.NOT_FOUND, "no such thing: é")
missing = channel.unary_unary("/test.Test/Missing")
assert code(lambda: missing(b"", timeout=PATIENCE))[0] == grpc.StatusCode.UNIMPLEMENTED

assert [int(number) for number in count(b"1000", timeout=PATIENCE)] == list(range(1000))
assert add_up((b"x" * 50000 for _ in range(100)), timeout=PATIENCE) == b"5000000"
large = b"y" * (3 << 20)
assert unary(large, timeout=PATIENCE) == b"re:" + large

calls = [unary.future(b"%d" % number, timeout=PATIENCE) for number in range(100)]
assert [call.result() for call in calls] == [b"re:%d" % number for number in range(100)]

# Taken back by the client, and by its deadline.
silent = talk(iter(queue.Queue().get, None), timeout=PATIENCE)
silent.cancel()
late = talk(iter(queue.Queue().get, None), timeout=0.3)
assert code(lambda: next(late))[0] == grpc.StatusCode.DEADLINE_EXCEEDED
assert unary(b"again", timeout=PATIENCE) == b"re:again"

# The service ends a stream whose client has not.
said.put(b"stop")
assert list(talking) == [] and talking.code() == grpc.StatusCode.OK
print("all good")
