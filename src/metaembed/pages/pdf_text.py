"""The text of one PDF page: what pdfium extracts, tidied, and what is written in annotations."""

import re
import string
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

# pdfium puts one of these in place of a hyphen that ends a line, and drops the line end.
_LINE_END_HYPHEN = re.compile("[\x02\ufffe]")
_REPLACED = str.maketrans(
    dict.fromkeys(map(chr, range(32)), "")
    | {"\t": " ", "\n": "\n"}
    | dict.fromkeys("\x7f\u00ad\u200b\u2060\ufeff\uffff", "")
    | {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ft", "ﬆ": "st"}
)
_PASSWORD_FLAG = 1 << 13


def tidy(text: str) -> str:
    """Undo what typesetting did to words: ligatures, decomposed accents, hyphens at line ends.

    Superscripts and other compatibility characters stay, since x² is not x2.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _join_hyphenated(text).translate(_REPLACED)
    lines = (" ".join(line.split()) for line in unicodedata.normalize("NFC", text).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _join_hyphenated(text: str) -> str:
    """Join words that were parted at a line end, with a hyphen or without.

    The page itself is the dictionary: the spelling that it uses elsewhere is right. Without one
    the hyphen goes when both parts are lower case (`retrie-val`, not `Anglo-Saxon`, `COVID-19`).
    """
    first, *rest = _LINE_END_HYPHEN.split(text)
    if not rest:
        return text
    words = set(re.findall(r"\w[\w-]*", text.lower()))
    joined = [first]
    for part in rest:
        left, right = _last_word(joined[-1]), _first_word(part)
        joined += ["-" if _keeps_hyphen(left, right, words) else "", part]
    return "".join(joined)


def _keeps_hyphen(left: str, right: str, words: set[str]) -> bool:
    if f"{left}-{right}".lower() in words:
        return True
    if (left + right).lower() in words:
        return False
    return not (left[-1:].islower() and right[:1].islower())


def _last_word(text: str) -> str:
    return "" if text[-1:].isspace() else "".join(text.rsplit(None, 1)[-1:]).strip(_PUNCTUATION)


def _first_word(text: str) -> str:
    return "" if text[:1].isspace() else "".join(text.split(None, 1)[:1]).strip(_PUNCTUATION)


_PUNCTUATION = string.punctuation + "“”‘’«»„–—…"


def annotation_text(page: Any, form: Any) -> str:
    """Read what was typed into form fields and comments, which the text layer does not have."""
    from pypdfium2 import raw

    texts: dict[str, None] = {}  # in order, each once: fields repeat their value
    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        if annotation:
            try:
                texts.update(dict.fromkeys(_annotation_texts(annotation, form)))
            finally:
                raw.FPDFPage_CloseAnnot(annotation)
    return "\n".join(text for text in texts if text)


def _annotation_texts(annotation: Any, form: Any) -> Iterator[str]:
    from pypdfium2 import raw

    if raw.FPDFAnnot_GetSubtype(annotation) != raw.FPDF_ANNOT_WIDGET:
        yield _string(lambda *to: raw.FPDFAnnot_GetStringValue(annotation, b"Contents", *to))
        return
    if form is None or raw.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD_FLAG:
        return
    typed = (
        raw.FPDF_FORMFIELD_TEXTFIELD,
        raw.FPDF_FORMFIELD_COMBOBOX,
        raw.FPDF_FORMFIELD_LISTBOX,
    )
    if raw.FPDFAnnot_GetFormFieldType(form, annotation) in typed:
        yield _string(lambda *to: raw.FPDFAnnot_GetFormFieldValue(form, annotation, *to))


def _string(get: Callable[..., int]) -> str:
    """Call a pdfium getter twice: for the number of bytes, then for the UTF-16 text."""
    import ctypes

    num_bytes = get(None, 0)
    buffer = (ctypes.c_ushort * (num_bytes // 2 + 1))()
    get(buffer, num_bytes)
    return tidy(bytes(buffer).decode("utf-16-le", errors="ignore"))
