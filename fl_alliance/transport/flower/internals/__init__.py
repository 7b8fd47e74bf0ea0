"""Everything of Flower that is not its public API: the only folder of the project that imports it.

Written against flwr 1.41.0; tests/transport/test_internals.py pins what is used here: another version fails loudly.
What is left out on purpose, because it acts on the whole process: Flower's retry helper and its heartbeat function send
SIGINT to the process on a 401, its version interceptor exits, its HTTP clients follow redirects and read proxy settings
for loopback. What is raised here is `httpx.HTTPError`, or a `LinkFailed` for an answer that makes no sense.
"""
