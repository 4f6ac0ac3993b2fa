"""What people have under way of devices, so that it ends with what lets them: a log-in, an account's password, owning
the device. Pure."""

from __future__ import annotations

from collections.abc import Callable


class View:
    """One request below a device's proxy address. `login` is "" for who came with a password. `cut` ends it at once."""

    __slots__ = ("cut", "device_id", "login", "user_id")

    def __init__(self, user_id: int, login: str, device_id: str, cut: Callable[[], None]) -> None:
        self.user_id, self.login, self.device_id, self.cut = user_id, login, device_id, cut


class Views:
    """All that is under way."""

    def __init__(self) -> None:
        self._all: set[View] = set()

    def __len__(self) -> int:
        return len(self._all)

    def begin(self, view: View) -> None:
        """It is let in."""
        self._all.add(view)

    def end(self, view: View) -> None:
        """It is over."""
        self._all.discard(view)

    def cut_login(self, login: str) -> None:
        """A log-in has ended."""
        self._cut(lambda view: view.login == login)

    def cut_user(self, user_id: int) -> None:
        """Every log-in of a user has ended, and the password is another."""
        self._cut(lambda view: view.user_id == user_id)

    def cut_device(self, device_id: str) -> None:
        """A device is somebody else's, or nobody's."""
        self._cut(lambda view: view.device_id == device_id)

    def cut_share(self, user_id: int, device_id: str) -> None:
        """A device is no longer shared with a user, or not as it was."""
        self._cut(lambda view: (view.user_id, view.device_id) == (user_id, device_id))

    def _cut(self, is_meant: Callable[[View], bool]) -> None:
        for view in [view for view in self._all if is_meant(view)]:
            self._all.discard(view)
            view.cut()
