from __future__ import annotations

import subprocess
import sys

import pytest

import stg_tune


def test_the_package_loads_nothing_heavy():
    script = "import stg_tune, sys; stg_tune.__version__, stg_tune.guided; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_version_is_that_of_the_distribution():
    assert stg_tune.__version__[0].isdigit()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'guide'"):
        stg_tune.guide  # noqa: B018
