"""Writes the seeds of the fuzz targets: seeds.py TESTS FOLDER. They are the cases of the battery and of the labels, and
answers about certificates as openssl makes them."""

import os
import re
import subprocess
import sys
import tempfile


def unescape(line):
    plain = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
    out, at = b"", 0
    while at < len(line):
        if line[at] != "\\":
            out += line[at].encode()
            at += 1
        elif line[at + 1] == "x":
            out += bytes([int(line[at + 2 : at + 4], 16)])
            at += 4
        elif line[at + 1] == "*":
            count, what, end = re.match(r"(\d+)\{([^}]*)\}()", line[at + 2 :]).groups()
            out += unescape(what) * int(count)
            at += 2 + len(count) + len(what) + 2
        else:
            out += plain[line[at + 1]]
            at += 2
    return out


def cases(path):
    """The bytes of each case of a file."""
    found, bytes_, reading = [], b"", False
    for line in open(path, encoding="utf-8").read().split("\n"):
        if line.startswith("=== "):
            reading, bytes_ = True, b""
        elif line.startswith("--- "):
            if reading:
                found.append(bytes_)
            reading = False
        elif reading and not line.startswith("# "):
            bytes_ += unescape(line)
    return [case for case in found if case and len(case) < 6000]


def write(folder, name, seeds):
    os.makedirs(os.path.join(folder, name), exist_ok=True)
    for number, seed in enumerate(seeds):
        with open(os.path.join(folder, name, f"{number:04}"), "wb") as file:
            file.write(seed)


def ocsp():
    """A certificate, its issuer and an answer, one behind the other: of the issuer, of a delegate, and a revocation."""
    extensions = (
        "[leaf]\nsubjectAltName=DNS:app.test\nauthorityInfoAccess=OCSP;URI:http://ocsp.test/\ntlsfeature=status_request\n"
        "[delegate]\nextendedKeyUsage=OCSPSigning\nkeyUsage=digitalSignature\n"
    )
    with tempfile.TemporaryDirectory() as place:
        run = lambda *words: subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)
        key = lambda name: run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name + ".key")
        with open(os.path.join(place, "extensions"), "w", encoding="utf-8") as file:
            file.write(extensions)
        key("ca")
        run("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=ca", "-days", "36500", "-out", "ca.pem")
        for serial, name in enumerate(["leaf", "delegate"], 0x1000):
            key(name)
            run("req", "-new", "-key", name + ".key", "-subj", "/CN=" + name, "-out", name + ".csr")
            sign = ["x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "36500"]
            run(*sign, "-set_serial", str(serial), "-extfile", "extensions", "-extensions", name, "-out", name + ".pem")
        run("ocsp", "-issuer", "ca.pem", "-cert", "leaf.pem", "-no_nonce", "-reqout", "question")

        def read(name):
            with open(os.path.join(place, name), "rb") as file:
                return file.read()

        certificates = b""
        for name in ["leaf", "ca"]:
            run("x509", "-in", name + ".pem", "-outform", "DER", "-out", name + ".der")
            certificates += read(name + ".der")
        found = []
        for state, signer in [("V\t{0}Z\t", "ca"), ("V\t{0}Z\t", "delegate"), ("R\t{0}Z\t200101000000Z", "ca")]:
            with open(os.path.join(place, "index"), "w", encoding="utf-8") as file:
                file.write(state.format("491231235959") + "\t1000\tunknown\t/CN=leaf\n")
            by = ["-rsigner", signer + ".pem", "-rkey", signer + ".key", "-index", "index", "-CA", "ca.pem"]
            run("ocsp", *by, "-reqin", "question", "-ndays", "36500", "-respout", "answer")
            found.append(certificates + read("answer"))
        return found


def main(tests, folder):
    def all_of(kind):
        place = os.path.join(tests, "http", kind)
        return [case for name in sorted(os.listdir(place)) for case in cases(os.path.join(place, name))]

    requests, responses = all_of("requests"), all_of("responses")
    assert len(requests) > 300 and len(responses) > 100, "the battery was not found"
    bodies = [case.split(b"\r\n\r\n", 1)[1] for case in requests + responses if b"\r\n\r\n" in case]
    write(folder, "request_head", requests)
    write(folder, "response_head", [b"\0" + case for case in responses] + [b"\1" + case for case in responses])
    write(folder, "chunks", [bytes([0, 2, 9, 30]) + body for body in bodies if body])
    firsts = [
        b"PROXY TCP4 10.1.2.3 10.0.0.1 5000 443\r\nhello",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\1\2\3\x0a\0\0\1\x13\x88\1\xbb",
        b"\x16\3\1\0\x40\1\0\0\x3c\3\3" + b"\7" * 32 + b"\0\0\2\x13\1\1\0\0\x11\0\0\0\x0d\0\x0b\0\0\x08app.test",
        b"\0\0\0\x1c\0\3\0\0user\0me\0database\0d\0\0",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"\x0f\0\x2f\x09mc.mytest\x63\xdd\2",
        b"\x0f\0\x2f\x09mc.mytest\x63\xdd\1\1\0\x09\1" + b"\1" * 8,
        b"GET /path HTTP/1.1\r\n",
    ]
    write(folder, "first_bytes", [bytes([cut]) + first for first in firsts for cut in (0, 1, 9, 40)])
    labels = [
        "dormouse.idle_timeout=15m",
        "dormouse.idle_timeout=2s\ndormouse.stop_method=pause\ndormouse.stop_after=24h",
        "proxy.aliases=app,web\nproxy.app.port=8080\nproxy.web.port=3000\nproxy.*.scheme=http",
        "proxy.#1.host=app.test\nproxy.#1.port=80",
        "dormouse.exclude=true",
        "proxy.app=port: 80\tscheme: http\thealthcheck:\t  path: /health",
        "dormouse.depends_on=db,cache:healthy\ndormouse.idle_timeout=1h",
        "dormouse.app.path=/api\ndormouse.app.strip_prefix=/api\ndormouse.schedule=Mon-Fri 08:00-18:00 Europe/Berlin",
        "dormouse.ready=http\ndormouse.ready.path=/\ndormouse.waiting=hold\ndormouse.ignore=monitors",
    ]
    write(folder, "ocsp_answer", ocsp())
    write(folder, "labels", [bytes([choice]) + text.encode() for text in labels for choice in (0, 1, 7, 0x29)])


main(sys.argv[1], sys.argv[2])
