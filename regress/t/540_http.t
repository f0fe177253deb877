#!/usr/bin/python3
"""540_http.t - HTTP/1.1 on the clients' port: etcd's /health, /version, /livez and /readyz.

The same requests go to a real etcd and to the server; status, body and the headers that clients
look at must be the same, healthy and with alarms.  Exceptions are lines with a reason.

SPDX-License-Identifier: Apache-2.0
"""

import http.client
import os
import socket
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402
import http2  # noqa: E402

TAP = t4test.Tap()
SECONDS = 20

PATHS = ["/health", "/health?serializable=true", "/health?exclude=NOSPACE",
         "/health?exclude=CORRUPT", "/health?exclude=NOSPACE&exclude=CORRUPT", "/version",
         "/livez", "/livez?verbose", "/livez?verbose=1", "/livez?exclude=serializable_read",
         "/livez/serializable_read", "/livez/serializable_read?verbose", "/readyz",
         "/readyz?verbose", "/readyz?verbose&exclude=data_corruption",
         "/readyz?verbose&exclude=data_corruption&exclude=non_learner",
         "/readyz?exclude=bogus", "/readyz?verbose&exclude=bogus", "/readyz?exclude=",
         "/readyz/data_corruption", "/readyz/data_corruption?verbose",
         "/readyz/serializable_read", "/readyz/linearizable_read", "/readyz/non_learner",
         "/readyz/non_learner?verbose", "/readyz/bogus", "/readyz/", "/livez/", "/livezz",
         "/nothing", "/"]
METHODS = ["POST", "PUT", "DELETE", "HEAD", "PATCH"]

# Headers that a client may act on.  Not compared: Date, the CORS headers (etcd lets any web page
# read these pages, --cors; t4 lets none) and those that only t4 sends (Cache-Control).
HEADERS = ["Content-Type", "Content-Length", "Allow", "Transfer-Encoding"]
# t4 says what pages there are.
OTHER_BODY = {404: "names the pages that there are"}


def ask(address, path, method="GET", body=None):
    connection = http.client.HTTPConnection(address, timeout=SECONDS)
    connection.request(method, path, body)
    answer = connection.getresponse()
    text = answer.read().decode()
    headers = {name: answer.getheader(name) for name in HEADERS}
    connection.close()
    return answer.status, headers, text


def compared(answer):
    """What is the same in both: the order of checks is random in etcd."""
    status, headers, text = answer
    if status in OTHER_BODY:
        headers = dict(headers, **{"Content-Length": None})
        text = text[:len("404 page not found")]
    return status, headers, sorted(text.split("\n"))


def compare(reference, subject, when, paths=PATHS):
    for path in paths:
        TAP.equal(compared(ask(subject, path)), compared(ask(reference, path)),
                  "%s: GET %s" % (when, path))


def methods(reference, subject):
    for method in METHODS:
        for path in ("/health", "/version", "/livez", "/readyz", "/readyz/non_learner",
                     "/nothing"):
            body = "x" * 10 if method in ("POST", "PUT") else None
            TAP.equal(compared(ask(subject, path, method, body)),
                      compared(ask(reference, path, method, body)), "%s %s" % (method, path))


def alarms(reference):
    """What etcd answers with alarms is what probes.c gives; its own unit test uses these words."""
    import etcdclient
    client = etcdclient.Client(reference.address)
    api = etcdclient.api
    member = client.status().header.member_id
    for kind, name in ((1, "NOSPACE"), (2, "CORRUPT")):
        client.call("Maintenance/Alarm", api.AlarmRequest(action=1, memberID=member, alarm=kind))
        status, _, text = ask(reference.address, "/health")
        TAP.equal((status, text), (503, '{"health":"false","reason":"ALARM %s"}\n' % name),
                  "etcd: /health with the alarm %s" % name)
        status, _, text = ask(reference.address, "/readyz?exclude=linearizable_read"
                              "&exclude=serializable_read&exclude=non_learner")
        want = (503, "[-]data_corruption failed: alarm activated: CORRUPT\n\n") \
            if name == "CORRUPT" else (200, "ok\n")
        TAP.equal((status, text), want, "etcd: /readyz with the alarm %s" % name)
        client.call("Maintenance/Alarm", api.AlarmRequest(action=2, memberID=member, alarm=kind))
    client.close()


def one_port(subject):
    """Both protocols on one port, at the same time, with reuse of connections."""
    import etcdclient
    client = etcdclient.Client(subject.address)
    connection = http.client.HTTPConnection(subject.address, timeout=SECONDS)
    bodies = []
    for i in range(20):
        client.put(b"port", b"%d" % i)
        connection.request("GET", "/health")
        bodies.append(connection.getresponse().read())
    TAP.equal(bodies, [b'{"health":"true","reason":""}'] * 20,
              "one HTTP connection is used again between calls of gRPC")
    TAP.equal(client.range(b"port").kvs[0].value, b"19", "and gRPC is served on the same port")
    connection.close()
    client.close()
    for path in ("/metrics", "/status", "/healthz"):
        TAP.equal(ask(subject.address, path)[0], 200, "%s is there, too" % path)


def in_pieces(subject):
    """A greeting may come byte by byte, of either protocol."""
    def slowly(data):
        with socket.create_connection(("127.0.0.1", subject.port), SECONDS) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(data)):
                s.sendall(data[i:i + 1])
            return s.recv(4096)

    text = slowly(b"GET /health HTTP/1.1\r\nHost: t4\r\nConnection: close\r\n\r\n")
    TAP.ok(text.startswith(b"HTTP/1.1 200"), "a request of HTTP/1.1, byte by byte", text)
    text = slowly(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    TAP.ok(len(text) >= 9 and text[3] == 4, "a preface of HTTP/2, byte by byte", text)
    for name, data in (("POST", b"POST /health HTTP/1.1\r\nHost: t4\r\nContent-Length: 0\r\n\r\n"),
                       ("PUT", b"PUT /health HTTP/1.1\r\nHost: t4\r\nContent-Length: 0\r\n\r\n")):
        text = slowly(data)
        TAP.ok(text.startswith(b"HTTP/1.1 405"), "%s is no preface" % name, text)
    with socket.create_connection(("127.0.0.1", subject.port), SECONDS) as s:
        s.sendall(b"GET /version HTTP/1.0\r\n\r\n")
        text = s.recv(4096)
    TAP.ok(b" 200 " in text and b"etcdserver" in text, "HTTP/1.0 is answered", text)


def spoken_to(subject):
    """Who waits to be greeted is greeted, and served when it answers; the core's settings follow."""
    connection = http2.Connection(subject.port, SECONDS, b"")
    TAP.equal(connection.wait(http2.SETTINGS), b"", "a silent client gets settings")
    connection.send(http2.PREFACE + http2.frame(http2.SETTINGS),
                    http2.frame(http2.SETTINGS, http2.ACK))
    TAP.ok(connection.wait(http2.SETTINGS), "when it answers, those of the core")
    connection.send(http2.frame(http2.SETTINGS, http2.ACK),
                    http2.frame(http2.PING, 0, 0, b"12345678"))
    found = connection.next()
    while found and not (found[0] == http2.PING and found[1] & http2.ACK):
        found = connection.next()
    TAP.ok(found, "and it is served")
    connection.close()
    connection = http2.Connection(subject.port, SECONDS, b"")
    connection.wait(http2.SETTINGS)
    connection.send(b"GET /health HTTP/1.1\r\nHost: t4\r\n\r\n")
    TAP.ok(connection.is_closed(SECONDS), "HTTP/1.1 is too late then")
    connection.close()


def main():
    reference, subject = t4test.reference(), t4test.subject()
    if subject is None:
        TAP.skip_all("the server was not built")
    if reference is None or reference.is_34():
        TAP.skip_all("there is no etcd 3.6 to compare with")
    with reference.start(), subject.start():
        compare(reference.address, subject.address, "on the clients' port")
        compare(reference.address, subject.metrics_address, "on the port for probes",
                ["/health", "/version", "/livez?verbose", "/readyz?verbose", "/nothing"])
        methods(reference.address, subject.address)
        one_port(subject)
        in_pieces(subject)
        spoken_to(subject)
        alarms(reference)
    TAP.done()


main()
