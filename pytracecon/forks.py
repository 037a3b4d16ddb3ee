"""What a child after fork() must not keep: it would read what is its parent's, and hold it after that."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

__all__ = ["cut_off", "forget"]

_living: weakref.WeakKeyDictionary[object, weakref.WeakMethod[Callable[[], None]]] = weakref.WeakKeyDictionary()


def cut_off(owner: object, let_go: Callable[[], None]) -> None:
    """Call this method of the owner in every child, until `forget` or the owner's end."""
    _living[owner] = weakref.WeakMethod(let_go)


def forget(owner: object) -> None:
    _living.pop(owner, None)


def _in_child() -> None:
    for reference in list(_living.values()):
        let_go = reference()
        if let_go is not None:
            let_go()
    _living.clear()


os.register_at_fork(after_in_child=_in_child)
