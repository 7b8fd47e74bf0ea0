"""What tests raise where kill -9 would end a process."""


class Killed(BaseException):
    """Ends a process where it stands: nobody catches it, and nothing after it runs."""
