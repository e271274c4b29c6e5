"""With this folder in PYTHONPATH, a Python that looks up or connects to another machine ends at once, and says so.

It ends without an exception, which a library could catch. Sockets of the file system are no network.
"""

import os
import sys

EVENTS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
CODE = 70


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in EVENTS and not (event == "socket.connect" and isinstance(arguments[1], str | bytes)):
        os.write(2, f"network: {event} {arguments}\n".encode())
        os._exit(CODE)


sys.addaudithook(_refuse)
