"""A TCP proxy whose open connections can be made to hang, as behind a load balancer that forgot them."""

import selectors
import socket
import threading
from types import TracebackType
from typing import Self


class FreezingProxy:
    """Forwards 127.0.0.1:``port`` to a port of the same machine. New connections work also after ``freeze``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._frozen: list[socket.socket] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(10)
        for each in (*self._pairs, *self._frozen, self._listener):
            each.close()

    def freeze(self) -> int:
        """Open connections stay open, and nothing passes any more; returns how many these are."""
        with self._lock:
            self._frozen += self._pairs
            self._pairs.clear()
            return len(self._frozen) // 2

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopped.is_set():
                for key, _ in selector.select(0.05):
                    with self._lock:
                        self._serve(selector, key.fileobj)  # type: ignore[arg-type]

    def _serve(self, selector: selectors.BaseSelector, ready: socket.socket) -> None:
        if ready is self._listener:
            near, far = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._target), 5)
            for one, other in ((near, far), (far, near)):
                self._pairs[one] = other
                selector.register(one, selectors.EVENT_READ)
            return
        other = self._pairs.get(ready)
        if other is None:  # frozen: whatever comes is not looked at
            selector.unregister(ready)
            return
        try:
            data = ready.recv(65536)
            if data:
                other.sendall(data)
                return
        except OSError:
            data = b""
        for each in (ready, other):
            selector.unregister(each)
            self._pairs.pop(each, None)
            each.close()
