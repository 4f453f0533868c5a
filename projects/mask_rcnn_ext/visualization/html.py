"""Pages of one file: they open from disk, without a network, and run no text of the data.

A page is a template beside this file, `templates/<name>.html`, which extends `page.html`. Every
value that is put into one is escaped. The browser is told to load nothing, and to run the page's
own script only, by its hash: text that slipped through as a script would not run.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def render_page(name: str, **values: Any) -> bytes:
    """
    Args:
        name: of the templates: `<name>.html`, and where they are there `<name>.css` and `<name>.js`
        values: what the template asks for; `title` and `generator` by `page.html`
    Returns:
        the file's bytes, UTF-8
    """
    script = _text(f"{name}.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = _environment().get_template(f"{name}.html")
    text = html.render(
        style=Markup(_text("page.css") + _text(f"{name}.css")),
        script=Markup(script),
        script_source=Markup(f"'sha256-{digest}'" if script else "'none'"),
        **values,
    )
    # A file name may hold half of a surrogate pair, which UTF-8 has not.
    return text.encode("utf-8", "replace")


def picture_uri(image: np.ndarray, longest: int, quality: int = 82) -> str:
    """A picture to be embedded, made smaller if need be.

    Args:
        image: (H, W, 3) uint8 RGB
        longest: limit of its longer side, pixels
        quality: of the JPEG, 0 to 100; a picture of at most 256 pixels becomes a PNG, exact
    Returns:
        a data: address
    """
    scale = longest / max(image.shape[:2])
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    if max(image.shape[:2]) <= 256:
        kind, encoded = "png", cv2.imencode(".png", bgr)[1]
    else:
        kind, encoded = "jpeg", cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def hex_colour(colour: tuple[int, int, int]) -> str:
    """RGB in 0..255 as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _text(name: str) -> str:
    path = _TEMPLATES / name
    return path.read_text(encoding="utf-8") if path.is_file() else ""
