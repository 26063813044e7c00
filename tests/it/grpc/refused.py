"""Calls hosts that can not answer, and says how each call ended: `refused.py ADDRESS HOST...`."""

import sys

import grpc

for host in sys.argv[2:]:
    channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.default_authority", host)])
    try:
        channel.unary_unary("/test.Test/Unary")(b"hello", timeout=60)
    except grpc.RpcError as error:
        print(host, error.code().name, error.details())
