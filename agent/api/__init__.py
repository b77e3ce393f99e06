"""The agent's doors: one dispatch, two ways to speak to it.

dispatch     a request to its operation, and the reply back, now or later
connections  one peer, and what may be spoken with it
listeners    sockets and their bytes: one task, one epoll, bounded in everything
frames       the door for programs: length-prefixed msgpack, pipelined
http         the door for curl and proxies: JSON over HTTP/1.1
routes       what an HTTP request asks for
authz        the door for proxies that only ask: nginx, Envoy, and their kind
problems     what a refusal or an error is in HTTP
exposition   metrics in Prometheus' format
sockets      makes the listening sockets appear, safely
"""
