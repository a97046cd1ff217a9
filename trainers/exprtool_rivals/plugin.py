"""Registers the methods that the paper is compared with: a trainer and a backend for each. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exprtool import hookimpl
from exprtool.errors import ModelError
from exprtool.expressions import EXPRESSIONS
from exprtool.types import Backend, BackendSpec, Exported, ExportWish, Readiness, TrainerSpec, Variant, packages_ready

if TYPE_CHECKING:
    from exprtool_training.watch import Watcher


@dataclass(frozen=True)
class Rival:
    """A method: the module that holds it, the names in there of its settings and its method, what it needs,
    and its name and the paper's figures in ``exprtool reproduce``."""

    name: str
    summary: str
    module: str
    config: str
    method: str
    needs: tuple[str, ...] = ("torch",)
    imports: tuple[str, ...] = ()
    title: str = ""
    figures: tuple[int, ...] = ()

    def of(self, what: str) -> Any:
        """Something out of the method's module, imported only now."""
        return getattr(import_module(f"exprtool_rivals.{self.module}"), what)

    def run(self, config: Any, watcher: Watcher | None = None) -> None:
        from exprtool_training.loop import run

        run(config, self.of(self.method), watcher)

    def opens(self, path: Path) -> bool:
        from exprtool_training.checkpoint import made_by

        return made_by(path, self.name)

    def load(self, path: Path, device: str) -> Backend:
        return self.of("load")(path, device)

    def export(self, run: Path, out: Path, wish: ExportWish) -> Exported:
        return self.of("export")(run, out, wish)

    def own_head(self, path: Path) -> Any:
        """The expression head that a rival's discriminator brings along; None where there is none."""
        module = import_module(f"exprtool_rivals.{self.module}")
        return module.own_head(path) if hasattr(module, "own_head") else None

    def load_from(self, device: str, argument: str) -> Backend:
        path, worn = Path(argument).expanduser(), ""
        if not path.exists() and "@" in argument:
            argument, _, worn = argument.rpartition("@")
            path = Path(argument).expanduser()
        if self.imports and not path.exists():
            path = self.imported(argument)
        if not self.opens(path):
            raise ModelError(
                f"{argument} is no run of the trainer {self.name!r}. Make one with: exprtool train --trainer "
                f"{self.name} --data FACES --out RUN"
            )
        if worn and self.module != "stgan":
            raise ModelError(f"The backend {self.name!r} need not be told what a face wears: leave out @{worn}.")
        return self.of("load")(path, device, worn) if worn else self.load(path, device)

    def imported(self, name: str = "") -> Path:
        """The folder of imported weights in the user's cache, or the weights of a name in there."""
        from exprtool.weights.catalogue import models_dir

        folder = models_dir() / self.name
        return folder / f"{name.removesuffix('.safetensors')}.safetensors" if name else folder

    def import_weights(self, path: Path, labels: tuple[str, ...]) -> tuple[str, Path]:
        target = self.of("import_weights")(path, labels, self.imported())
        return f"{self.name}:{target.stem}", target

    def load_none(self, device: str) -> Backend:
        raise ModelError(f"{self.readiness().remedy}.")

    def readiness(self) -> Readiness:
        packages = packages_ready(*self.needs)
        how = f"train one (exprtool train --trainer {self.name} --out RUN) and give it as --backend {self.name}:RUN"
        return packages if not packages.ready else Readiness(False, "it has no weights of its own", how)


RIVALS = (
    Rival(
        "masked-regression",
        "Masked regression (Khan et al. 2020): each pixel from its 3 x 3 neighbours, in closed form.",
        "regression", "MaskedConfig", "Regression", (), title="Masked regression",
    ),
    Rival(
        "pixel-fes",
        "Pixel-based synthesis (Akram and Khan 2020): each pixel from itself, in closed form.",
        "regression", "PixelConfig", "Regression", (), title="Pixel-based FES",
    ),
    Rival(
        "stargan",
        "StarGAN (Choi et al. 2018): six residual blocks, no skip.",
        "variants", "StarGanConfig", "run_method", title="StarGAN", figures=(8, 11),
    ),
    Rival(
        "ganimation",
        "GANimation (Pumarola et al. 2018): attention and colour, told by action units.",
        "ganimation", "GanimationConfig", "Ganimation",
        imports=(".pth", ".pt", ".ckpt"), title="GANimation", figures=(8,),
    ),
    Rival(
        "stgan",
        "STGAN (Liu et al. 2019): told the difference of expressions; --backend stgan:RUN@neutral.",
        "stgan", "StganConfig", "Stgan", title="STGAN", figures=(8, 10),
    ),
    Rival(
        "stgan-us",
        "STGAN with the ultimate skip (Fig. 10 of the US-GAN paper).",
        "stgan", "StganUsConfig", "Stgan", title="STGAN with skip", figures=(10,),
    ),
    Rival(
        "sargan",
        "SARGAN (Akram and Khan): US-GAN with attention in its block.",
        "variants", "SarganConfig", "run_method", title="SARGAN",
    ),
    Rival(
        "gated",
        "US-GAN with a gated skip, y = tanh(h) + g x: ours, to the paper's future work.",
        "variants", "GatedConfig", "run_method", title="Gated skip",
    ),
)  # fmt: skip


@hookimpl
def register_trainers(register: Callable[[TrainerSpec], None]) -> None:
    for rival in RIVALS:
        register(
            TrainerSpec(
                name=rival.name,
                summary=rival.summary,
                config=lambda rival=rival: rival.of(rival.config),
                run=rival.run,
                opens=rival.opens,
                load=rival.load,
                export=rival.export,
                own_head=rival.own_head,
                variants=(Variant(rival.title, {}, rival.figures),),
                readiness=lambda rival=rival: packages_ready(*rival.needs),
            )
        )


@hookimpl
def register_backends(register: Callable[[BackendSpec], None]) -> None:
    for rival in RIVALS:
        register(
            BackendSpec(
                name=rival.name,
                summary=rival.summary,
                load=rival.load_none,
                load_from=rival.load_from,
                expressions=EXPRESSIONS,
                resolution="crops of the run's size, lifted to the photo's own",
                devices=("cpu", "cuda", "mps") if rival.needs else ("cpu",),
                runtime="torch" if rival.needs else "onnxruntime",
                imports=rival.imports,
                import_weights=rival.import_weights if rival.imports else None,
                readiness=rival.readiness,
            )
        )
