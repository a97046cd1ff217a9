"""What to install for the optional parts of exprtool."""

from __future__ import annotations

from importlib import metadata


def install_command(extra: str) -> str:
    """The command that installs what an extra of exprtool needs, package by package.

    It works however exprtool itself was installed, also where no index knows it. Without metadata it names the extra.
    """
    from packaging.requirements import Requirement

    try:
        listed = [Requirement(line) for line in metadata.requires("exprtool") or ()]
    except metadata.PackageNotFoundError:
        listed = []
    wanted = [
        f"'{each.name}{each.specifier}'"
        for each in listed
        if each.marker and each.marker.evaluate({"extra": extra}) and not each.marker.evaluate({"extra": ""})
    ]
    return f"pip install {' '.join(wanted)}" if wanted else f"pip install 'exprtool[{extra}]'"
