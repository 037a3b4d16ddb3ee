"""Cases of tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def with_slow(values: Iterable[Any], *quick: Any) -> list[Any]:
    """All values, of which those that are not `quick` are left out where all is emulated: no kernel changes them."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
