"""`lazy_dataclass`: a dataclass with slots, whose methods are compiled when the first of them is asked for.

Those of the events took 8 ms of the CPU at each start, and most of them are never called: what reads the ring makes
events without their `__init__`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, TypeVar, dataclass_transform

__all__ = ["lazy_dataclass"]

T = TypeVar("T")


@dataclass_transform()
def lazy_dataclass(cls: type[T]) -> type[T]:
    """As `dataclass(slots=True)`."""
    for name in _METHODS:
        setattr(cls, name, _Later())
    # With slots the class is made anew: so each `_Later` learns whose it is, and one with `__eq__` has no `__hash__`.
    return dataclass(init=False, repr=False, eq=False, slots=True)(cls)


_METHODS = ("__init__", "__repr__", "__eq__")


class _Later:
    """Stands where a method will be."""

    __slots__ = ("_name", "_owner")

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        _compile(self._owner)
        return vars(self._owner)[self._name].__get__(instance, owner)


def _compile(cls: type[Any]) -> None:
    members = [(each.name, each.type, field(default=each.default)) for each in fields(cls)]
    twin = make_dataclass(cls.__name__, members, namespace={"__module__": cls.__module__, "__doc__": cls.__doc__})
    for name in _METHODS:
        method = vars(twin)[name]
        method.__qualname__ = f"{cls.__qualname__}.{name}"
        setattr(cls, name, method)
