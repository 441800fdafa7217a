"""Loaded by pytest wherever the gateway is installed; the suite is imported where it is run."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("gateway.suite.contract")
