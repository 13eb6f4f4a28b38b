"""What diffusers offers to derive a guider from; kept here, because other parts do not import diffusers."""

from __future__ import annotations

from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput

__all__ = ["BaseGuidance", "GuiderOutput", "register_to_config"]
