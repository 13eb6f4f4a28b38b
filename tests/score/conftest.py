from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from stg_tune.embedded.scorers_data import Clean, render_clean
from stg_tune.score import embedded_scorers

if TYPE_CHECKING:
    from stg_tune.embedded import degradations
    from stg_tune.score.composite import CompositeScorer


@pytest.fixture(scope="session")
def scorers() -> CompositeScorer:
    return embedded_scorers()


@pytest.fixture(scope="session")
def clean() -> Clean:
    """Renders of the test split: scans that no scorer was trained on."""
    return render_clean(48, "test", 11)


@pytest.fixture(scope="session")
def videos(clean: Clean) -> torch.Tensor:
    return clean.frames.float() / 255


@pytest.fixture(scope="session")
def layers(clean: Clean) -> degradations.Layers:
    return clean.layers(torch.arange(24), torch.arange(17))
