"""The hot calls of the run's ServerApp, answered in this process: the SuperLink's own handlers without its HTTP stack.

The coordinator holds both ends of these calls. Over loopback HTTP each costs milliseconds of routing, middleware and
threads; the handler itself a fraction of one. What a call checks stays: the task that a token names must be alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flwr.superlink.servicer.runtime import runtime_handlers

from fl_alliance.errors import LinkFailed


class Direct:
    """The calls of one task of `app`, by the names that Flower's own client has."""

    def __init__(self, app: Any, token: str) -> None:
        self._factory, self._token = app.state.linkstate_factory, token
        self.GetNodes = self._calling(runtime_handlers.get_nodes)
        self.PushMessages = self._calling(runtime_handlers.push_messages)
        self.PullMessages = self._calling(runtime_handlers.pull_messages)
        self.PushObject = self._calling(runtime_handlers.push_object)
        self.PullObject = self._calling(runtime_handlers.pull_object)
        self.ConfirmMessageReceived = self._calling(runtime_handlers.confirm_message_received)

    def _calling(self, handler: Callable[[Any, Any, Any], Any]) -> Callable[[Any], Any]:
        def call(request: Any) -> Any:
            state = self._factory.state()
            task = state.get_task_by_token(self._token)
            if task is None:
                raise LinkFailed("Flower has given up the run's task")
            try:
                return handler(request, state, task)
            except Exception as error:  # over HTTP this would be a status
                raise LinkFailed(f"Flower: {type(error).__name__}: {error}") from error

        return call
