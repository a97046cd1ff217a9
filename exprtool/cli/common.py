"""What several commands share: option types, messages, and turning options into what the library takes.

Imports of anything heavy stand inside the functions, because every command module is imported for ``--help``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exprtool.errors import ExprtoolError, UsageError

if TYPE_CHECKING:
    from exprtool.faces.select import Selection
    from exprtool.pipeline import Session
    from exprtool.types import Edit, FaceRegion, Image

INPUT_PANEL, EXPRESSION_PANEL, FACES_PANEL, OUTPUT_PANEL = "Input", "Expression", "Which faces", "Output"


def complete_expression(incomplete: str) -> list[str]:
    """Shell completion of ``--expr``, also of the last part of a blend."""
    from exprtool.expressions import EXPRESSIONS, VARIANTS

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in (*EXPRESSIONS, *VARIANTS, "all") if name.startswith(last)]


def complete_backend(incomplete: str) -> list[str]:
    """Shell completion of ``--backend``."""
    from exprtool.plugins import registry

    return [name for name in ("auto", *registry().backends) if name.startswith(incomplete)]


def complete_detector(incomplete: str) -> list[str]:
    """Shell completion of ``--detector``."""
    from exprtool.plugins import registry

    return [name for name in ("auto", *registry().detectors) if name.startswith(incomplete)]


Expr = Annotated[
    list[str] | None,
    typer.Option(
        "--expr",
        "-e",
        help="happy, happy-closed, fear, happy=0.6, a blend happy=0.6,sad=0.3, or all. Repeat it for more outputs.",
        autocompletion=complete_expression,
        rich_help_panel=EXPRESSION_PANEL,
    ),
]
Strength = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.5,
        help="How far to go from the face's own expression to the wanted one; 0 changes nothing.",
        rich_help_panel=EXPRESSION_PANEL,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="CONTROL=WEIGHT",
        help="Add a blendshape control, named as in ARKit: browInnerUp=0.6. Repeatable.",
        rich_help_panel=EXPRESSION_PANEL,
    ),
]
Like = Annotated[
    Path | None,
    typer.Option(
        help="Copy the expression that the largest face of this photo wears.", rich_help_panel=EXPRESSION_PANEL
    ),
]
Asymmetry = Annotated[
    float,
    typer.Option(
        min=0.0, max=0.5, help="Make left and right differ, as real faces do.", rich_help_panel=EXPRESSION_PANEL
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of whatever is drawn at random.", rich_help_panel=EXPRESSION_PANEL)]
BackendName = Annotated[
    str,
    typer.Option(
        "--backend", "-b", help="What makes the expression: see `exprtool backends`.", autocompletion=complete_backend
    ),
]
DetectorName = Annotated[
    str,
    typer.Option(
        "--detector", help="What finds the faces: see `exprtool detectors`.", autocompletion=complete_detector
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
CommercialOnly = Annotated[
    bool, typer.Option("--commercial-only", help="Refuse weights whose licence forbids commercial use.")
]
Faces = Annotated[
    str, typer.Option("--faces", help="all, largest, or numbers from left to right: 1,3.", rich_help_panel=FACES_PANEL)
]
Person = Annotated[
    Path | None,
    typer.Option(help="Only the person in this photo (its largest face).", rich_help_panel=FACES_PANEL),
]
Similarity = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="How alike --person must be, 0 to 1.", rich_help_panel=FACES_PANEL),
]
MinFace = Annotated[
    float, typer.Option(min=0, metavar="PX", help="Leave smaller faces alone.", rich_help_panel=FACES_PANEL)
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Also edit faces that the backend would rather leave alone.", rich_help_panel=FACES_PANEL
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace outputs that exist.", rich_help_panel=OUTPUT_PANEL)
]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing", help="Keep outputs that exist and do the others.", rich_help_panel=OUTPUT_PANEL),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON line per output on stdout.", rich_help_panel=OUTPUT_PANEL)
]
NoProvenance = Annotated[
    bool,
    typer.Option(
        "--no-provenance", help="Do not record in the output that it was edited.", rich_help_panel=OUTPUT_PANEL
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more, with the origin of unforeseen errors.")]

DEFAULT_SIMILARITY = 0.5


def quieten_libraries() -> None:
    """Keep what libraries think aloud off the user's screen; what matters reaches them as one of our messages."""
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)


@contextmanager
def nothing_written() -> Iterator[None]:
    """What goes wrong in this block stops the run before its first output: a refusal, exit code 2."""
    try:
        yield
    except UsageError:
        raise
    except ExprtoolError as error:
        raise UsageError(*error.args) from error


def naming(name: str, message: str) -> str:
    """The message with the file's name before it, unless it begins with that itself."""
    return message if message.startswith(name) else f"{name}: {message}"


def existing_policy(overwrite: bool, skip_existing: bool) -> str:
    """The policy for outputs that exist, as `exprtool.plan.plan_outputs` takes it."""
    if overwrite and skip_existing:
        raise UsageError("--overwrite and --skip-existing contradict each other; give one of them.")
    return "overwrite" if overwrite else "skip" if skip_existing else "refuse"


def parse_controls(texts: Sequence[str] | None) -> dict[str, float]:
    """Read every ``--set NAME=WEIGHT``; weights from -1 to 1.5. Whether a backend knows the names is checked later."""
    from exprtool.expressions import parse_amount

    controls: dict[str, float] = {}
    for text in texts or ():
        for part in text.split(","):
            name, equals, amount = (piece.strip() for piece in part.partition("="))
            if not (name and equals):
                raise UsageError(f"Cannot read --set {text!r}: write CONTROL=WEIGHT, such as browInnerUp=0.6.")
            if name in controls:
                raise UsageError(f"--set names {name!r} twice; give it one weight.")
            controls[name] = parse_amount(amount, f"{name} in --set", low=-1.0)
    return controls


def make_edits(
    session: Session,
    expr: Sequence[str] | None,
    *,
    strength: float,
    controls: Sequence[str] | None = None,
    like: Path | None = None,
    asymmetry: float = 0.0,
    seed: int = 0,
    force: bool = False,
) -> dict[str, Edit]:
    """Turn the expression options into edits by label, checked against what the session's backends can do."""
    from exprtool.expressions import parse_all
    from exprtool.types import Edit

    weights = parse_controls(controls)
    if expr and like:
        raise UsageError("--expr and --like both name the wanted expression; give one of them.")
    if not expr and not like and not weights:
        raise UsageError(
            "Name the wanted expression with --expr (happy, sad, ...), --like PHOTO or --set CONTROL=WEIGHT."
        )
    reference = largest_face(session, like)[1] if like else None
    blends = parse_all(expr) if expr else [(f"like-{like.stem}" if like else "custom", {})]
    edits = {label: Edit(blend, weights, strength, reference, asymmetry, seed, force=force) for label, blend in blends}
    for edit in edits.values():
        session.chain.require(edit)
    return edits


def make_selection(session: Session, faces: str, person: Path | None, similarity: float, min_face: float) -> Selection:
    """Turn the options that choose faces into a selection."""
    from exprtool import images
    from exprtool.faces.select import Selection, person_in

    wanted = None
    if person is not None:
        image = images.read_image(person).rgb
        wanted = person_in(image, session.find(image).found.faces, person)
    return Selection.parse(faces, person=wanted, similarity=similarity, min_face=min_face)


def largest_face(session: Session, path: Path) -> tuple[Image, FaceRegion]:
    """A photo that an option names, and its largest face; `NoFaceError` where there is none."""
    from exprtool import images
    from exprtool.errors import NoFaceError
    from exprtool.pipeline import why_none_selected

    prospect = session.find(images.read_image(path).rgb)
    if not prospect.selected:
        raise NoFaceError(f"{path}: {why_none_selected(prospect)}")
    return prospect.image, max(prospect.selected, key=lambda region: region.face.size)
