"""Captions of Open-Sora 1.2: cleaning, score suffixes, prompts per loop, and T5 features.

The cleaning rules are derived from ``IFPipeline._clean_caption`` of diffusers (Apache-2.0,
https://github.com/huggingface/diffusers/blob/main/src/diffusers/pipelines/deepfloyd_if/pipeline_if.py), ordered the
same, written as tables.
"""

from __future__ import annotations

import html
import re
import urllib.parse
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import ftfy
from bs4 import BeautifulSoup

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

_Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*pairs: tuple[str, str]) -> _Rules:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


_DOMAIN = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b\/?(?!@)"
_SUFFIX = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"

_LINKS = _rules(
    ("<person>", "person"),
    (rf"\b((?:https?:(?:\/{{1,3}}|[a-zA-Z0-9%])|{_DOMAIN}))", ""),
    (rf"\b((?:www:(?:\/{{1,3}}|[a-zA-Z0-9%])|{_DOMAIN}))", ""),
)
_CHARACTERS = _rules(
    (r"@[\w\d]+\b", ""),  # nicknames
    (r"[\u31c0-\u31ff\u3200-\u4dff\u4e00-\u9fff]+", ""),  # CJK strokes to CJK unified ideographs
    (
        r"[\u002D\u058A\u05BE\u1400\u1806\u2010-\u2015\u2E17\u2E1A\u2E3A\u2E3B\u2E40\u301C\u3030\u30A0"
        r"\uFE31\uFE32\uFE58\uFE63\uFF0D]+",
        "-",
    ),
    (r"[`´«»“”¨]", '"'),
    (r"[‘’]", "'"),
    (r"&quot;?", ""),
    (r"&amp", ""),
)
_NUMBERS_AND_FILES = _rules(
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # IP addresses
    (r"\d:\d\d\s+$", ""),  # article ids
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"[\S]+\.(?:{_SUFFIX})", ""),
    (r"[\"\']{2,}", '"'),
    (r"[\.]{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~\)\(\]\[\}\{\|\\/\\*]{1,}", " "),
    (r"\s+\.\s+", " "),
)
_CODES_AND_ADVERTS = _rules(
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # jc6640
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),  # jc6640vc
    (r"\b\d+[a-zA-Z]+\d+\b", ""),  # 6640vc231
    (r"(worldwide\s+)?(free\s+)?shipping", ""),
    (r"(free\s)?download(\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{_SUFFIX})(\simage[s]?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),  # j2d1a2a
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),  # 1920x1080, with the Cyrillic letter too
)
_SPACES_AND_ENDS = _rules(
    (r"\b\s+\:\s+", ": "),
    (r"(\D[,\./])\b", r"\1 "),
    (r"\s+", " "),
    (r"^[\"\']([\w\W]+)[\"\']$", r"\1"),
    (r"^[\'\_,\-\:;]", ""),
    (r"[\'\_,\-\:\-\+]$", ""),
    (r"^\.\S+$", ""),
)
_JOINERS = re.compile(r"[-_]")
_LOOP = re.compile(r"\|(\d+)\|")


def clean_caption(text: str) -> str:
    """The caption as Open-Sora feeds it to T5: cleaned twice, lower case, no links, tags, codes or CJK ideographs."""
    return _clean_once(_clean_once(text))


def plain_caption(text: str) -> str:
    """The caption in lower case without outer spaces: what is used with cleaning switched off."""
    return text.lower().strip()


def append_scores(
    prompts: Sequence[str],
    *,
    aesthetic_score: float | None = None,
    flow: float | None = None,
    camera_motion: str | None = None,
) -> list[str]:
    """The prompts with the scores Open-Sora 1.2 was trained to read, each only where the prompt has none yet.

    Args:
        prompts: Captions.
        aesthetic_score: LAION aesthetic score, about 4 to 7; the authors use 6.5.
        flow: Strength of motion, about 0 to 20 (mean optical flow).
        camera_motion: Such as ``pan right``, ``zoom in``, ``static``.
    """
    suffixes = {
        "aesthetic score:": None if aesthetic_score is None else f"{aesthetic_score:.1f}",
        "motion score:": None if flow is None else f"{flow:.1f}",
        "camera motion:": camera_motion,
    }
    given = [(label, value) for label, value in suffixes.items() if value is not None]
    return [
        prompt + "".join(f" {label} {value}." for label, value in given if label not in prompt) for prompt in prompts
    ]


def split_loops(prompt: str) -> tuple[list[str], list[int] | None]:
    """The captions of a prompt like ``|0| day |3| dusk`` and the loop each begins with.

    Returns:
        ``(["day", "dusk"], [0, 3])``; a prompt without a leading ``|0|`` gives ``([prompt], None)``.

    Raises:
        StgTuneError: The loops are not in ascending order.
    """
    if not prompt.startswith("|0|"):
        return [prompt], None
    pieces = _LOOP.split(prompt)[1:]
    loops, captions = [int(piece) for piece in pieces[::2]], [piece.strip() for piece in pieces[1::2]]
    if any(later <= earlier for earlier, later in pairwise(loops)):
        raise StgTuneError(f"the loops of {prompt!r} must ascend, got {loops}: write it like '|0| day |2| night'")
    return captions, loops


def merge_loops(captions: Sequence[str], loops: Sequence[int] | None) -> str:
    """The prompt that ``split_loops`` takes apart again."""
    return captions[0] if loops is None else "".join(f"|{at}|{text}" for at, text in zip(loops, captions, strict=True))


def prompts_of_loop(prompts: Sequence[str], loop: int) -> list[str]:
    """The caption of every prompt for one pass of a long video: the latest that begins at or before ``loop``."""
    chosen = []
    for prompt in prompts:
        captions, loops = split_loops(prompt)
        chosen.append(captions[sum(at <= loop for at in loops or [0]) - 1])
    return chosen


def encode_captions(
    captions: Sequence[str], tokenizer: Any, text_encoder: Any, *, max_length: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """T5 features of captions that are cleaned already.

    Args:
        captions: One text a row.
        tokenizer: A T5 tokenizer of transformers.
        text_encoder: ``T5EncoderModel``.
        max_length: Tokens a caption is cut or padded to.
        device: Where the tokens go.

    Returns:
        Features ``(batch, 1, max_length, channels)`` in the encoder's dtype, and the int64 mask
        ``(batch, max_length)``, 1 where a token is valid.
    """
    tokens = tokenizer(
        list(captions),
        max_length=max_length,
        padding="max_length",
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    mask = tokens.attention_mask.to(device)
    features = text_encoder(input_ids=tokens.input_ids.to(device), attention_mask=mask).last_hidden_state
    return features[:, None], mask


def _clean_once(text: str) -> str:
    text = _apply(_LINKS, urllib.parse.unquote_plus(text).strip().lower())
    text = _apply(_CHARACTERS, _without_tags(text))
    text = _apply(_NUMBERS_AND_FILES, text)
    if len(_JOINERS.findall(text)) > 3:  # this-is-my-cute-cat, this_is_my_cute_cat
        text = _JOINERS.sub(" ", text)
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return _apply(_SPACES_AND_ENDS, _apply(_CODES_AND_ADVERTS, text)).strip()


def _without_tags(text: str) -> str:
    with warnings.catch_warnings():
        # A caption that looks like a file name or an address is still a caption.
        warnings.simplefilter("ignore", UserWarning)
        return str(BeautifulSoup(text, features="html.parser").text)


def _apply(rules: _Rules, text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text
