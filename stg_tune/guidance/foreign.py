"""Refuses pipelines whose modules are in somebody else's hands: guided already, hooked, patched, cached, compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

ALREADY = "this pipeline is already guided: leave the other `with stg_tune.guided(...)` first"
_MOVERS = (
    "group_offloading",
    "layer_execution_tracker",
    "lazy_prefetch_group_offloading",
    "layerwise_casting",
    "peft_autocast_disable",
)
"""Hooks of diffusers that move or cast weights and leave the computation alone."""
_ADVICE = (
    "which would run in some passes and not in others: remove it (caches by disable_cache(), layer-skip guiders, "
    "earlier STG pipelines) before stg_tune.guided, or load the pipeline afresh."
)


def refuse_foreign(module: nn.Module, where: str) -> None:
    """Raises ``StgTuneError`` when a module carries another tool's hook or patch."""
    registry = _registered(module)
    movers = {name: hook for name, hook in registry.items() if name in _MOVERS}
    _refuse_shared_group(module, where, movers.values())
    moved = hasattr(module, "_hf_hook") or movers  # these replace forward, but only move weights
    patched = _is_patched(module) and not moved
    others = [f"{name} ({type(hook).__name__})" for name, hook in registry.items() if name not in _MOVERS]
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values(), *others]
    if patched or hooks:
        what = f"the hook {hooks[0]!r:.80}" if hooks else "a replaced forward"
        raise StgTuneError(f"{where} carries {what} of another tool, {_ADVICE}")


def _is_patched(module: nn.Module) -> bool:
    """Whether its ``forward`` is not that of its class: a hook that was taken off may leave that one behind."""
    forward = vars(module).get("forward")
    return forward is not None and getattr(forward, "__func__", None) is not type(module).forward


def _refuse_shared_group(module: nn.Module, where: str, movers: Iterable[Any]) -> None:
    """Group offload loads all blocks of a group with its first one, which a weak pass may skip."""
    leaders = [getattr(getattr(hook, "group", None), "onload_leader", None) for hook in movers]
    if any(leader is not None and leader is not module for leader in leaders):
        raise StgTuneError(
            f"{where} is offloaded in one group with other blocks, so skipping one would leave the others without "
            "weights: use num_blocks_per_group=1 or offload_type='leaf_level'"
        )


def refuse_caches(denoiser: nn.Module) -> None:
    """Raises ``StgTuneError`` when diffusers' own hooks change what some module computes: caches above all.

    They count calls, or answer a pass with what another pass has computed.
    """
    for name, module in denoiser.named_modules():
        others = [hook for hook in _registered(module) if hook not in _MOVERS]
        if others:
            raise StgTuneError(f"{name or 'the denoiser'} carries the hook {others[0]!r} of another tool, {_ADVICE}")


def _registered(module: nn.Module) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
    return found


def refuse_unguidable(module: nn.Module) -> None:
    """Raises ``StgTuneError`` when a denoiser is guided already, or compiled as a whole."""
    attributes = vars(module)
    forwards = [attributes[name] for name in ("forward", "_old_forward") if name in attributes]
    if any(getattr(forward, "stg_tune_guided", None) is forward for forward in forwards):
        raise StgTuneError(ALREADY)
    if hasattr(module, "_orig_mod") or attributes.get("_compiled_call_impl") is not None:
        raise StgTuneError(
            f"the denoiser ({type(module).__name__}) is compiled as a whole, so its blocks cannot be skipped: compile "
            "the blocks instead (pipe.transformer.compile_repeated_blocks())."
        )
