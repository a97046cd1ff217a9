"""Pages that are one file: template, style, script and pictures in it, nothing fetched from anywhere.

Templates are jinja2's with every value escaped. The page's content security policy lets no script run but its own and
no address be asked but, where told, the one that the page came from.
"""

from __future__ import annotations

import base64
import hashlib
import io
from functools import cache
from typing import TYPE_CHECKING, Any

from exprtool.types import Image

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment(package: str) -> Environment:
    """The templates that lie in a package. A value that a template names and nobody gives is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(
    package: str, template: str, *, style: str = "", script: str = "", connect: bool = False, **values: Any
) -> str:
    """A template of ``package`` filled in; ``style`` and ``script`` name files beside it that go into the page.

    ``connect`` lets the page talk to the server that it came from. The template places ``policy``, ``style`` and
    ``script``; everything else that it is given is escaped.
    """
    from markupsafe import Markup

    def inline(name: str) -> str:
        return _source(package, name) if name else ""

    code = inline(script)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    scripts = f"'sha256-{digest}'" if code else "'none'"
    server = "'self'" if connect else "'none'"
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {scripts}; connect-src {server}"
    )
    return (
        environment(package)
        .get_template(template)
        .render(policy=policy, style=Markup(inline(style)), script=Markup(code), **values)
    )


def _source(package: str, name: str) -> str:
    from importlib.resources import files

    return files(package).joinpath(name).read_text("utf-8")


def data_uri(picture: Image, *, quality: int | None = None) -> str:
    """RGB (H, W, 3) uint8 as a data URI: PNG, or JPEG of a quality from 1 to 100 with colour at full resolution.

    The file is written from the pixels alone, so that it carries no metadata and nothing of how it was made.
    """
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    if quality is None:
        Pillow.fromarray(picture).save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        Pillow.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
