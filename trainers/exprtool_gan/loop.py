"""The training loop of US-GAN, from top to bottom.

Letters are the paper's: x_real and its label c_o, the wanted label c_t, G and D, lambda_C, lambda_R, lambda_gp. One
step is one batch through D; every ``d_steps``-th of them G learns too.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from exprtool.errors import TrainingError, UsageError
from exprtool.stopping import StopRequest
from exprtool_gan.config import TrainConfig
from exprtool_gan.data import PreparedSet, ScanOptions, load_prepared
from exprtool_gan.desk import Desk
from exprtool_gan.feed import Feed
from exprtool_gan.graphs import Recorded
from exprtool_gan.look import Looker
from exprtool_gan.loss_log import LossLog
from exprtool_gan.memory import out_of_memory, says_what_fits
from exprtool_gan.processes import Alone, join
from exprtool_gan.run_folder import RunFolder
from exprtool_gan.sampler import Sampler
from exprtool_gan.schedule import learning_rate, total_steps
from exprtool_gan.state import Progress, load_training, read_progress
from exprtool_gan.step import Learner
from exprtool_gan.watch import Plan, Watcher
from exprtool_usgan.card import ModelCard
from exprtool_usgan.networks import count_parameters

_ASK_OTHERS_EVERY = 10
"""Steps between questions whether another process was asked to stop: each of them waits for the device."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``finished``, or saved after ``step`` of ``total`` steps; ``interrupted`` if by a signal."""

    step: int
    total: int
    finished: bool
    interrupted: bool
    best: float | None


def train(config: TrainConfig, watcher: Watcher | None = None) -> Outcome:
    """Train to the end of the configuration, or until SIGINT or SIGTERM, after which the run can be resumed.

    Raises `DataError` for data that cannot be trained on, `DeviceError`, `UsageError` for a configuration that does
    not fit the data, and `TrainingError` where the run cannot start, go on or save; the last good checkpoint stays.
    """
    with ExitStack() as stack:
        # --- 1. Who takes part, where, on which data -----------------------------------------------------------------
        world = join(config)
        watcher = watcher if watcher is not None and world.leads else Watcher()
        folder = RunFolder(config.out)
        folder.check(config)
        prepared = _data(config, world, watcher)
        prepared.require(batch=config.batch_size, test=False)
        x_train, c_train = prepared.images[prepared.train], prepared.labels[prepared.train]
        total = total_steps(config.steps, config.epochs, len(x_train), config.batch_size)

        # --- 2. Networks, optimizers, and the state of the run that is resumed ---------------------------------------
        half, record = _half(config, world.device), _records(config, world)
        looker = _looker(config, world, prepared)
        _choose_kernels(config, world.device)
        with torch.random.fork_rng(devices=[]):  # the same first weights on every device and in every process
            torch.manual_seed(config.seed)
            learner = Learner(config, len(prepared.label_names), world.device, average=world.average, half=half)
        progress = Progress(0, 0, total, prepared.manifest_hash)
        if config.resume:
            progress = _resume(folder, learner, prepared, total)
        card = _card(config, prepared)
        world.wait()  # nobody looks for an older run in the folder any more; whatever is refused was refused by now
        if world.leads:
            folder.open(config, dict(prepared.manifest))
            folder.forget_after(progress.step)

        # --- 3. What surrounds the loop ------------------------------------------------------------------------------
        sampler = Sampler(
            c_train, len(prepared.label_names), config.batch_size, config.seed,
            config.targets, config.flip, config.shift, config.colour,
        )  # fmt: skip
        feed = Feed(x_train, sampler, world.device, share=(world.rank, world.size))
        stack.callback(feed.close)
        d_step = Recorded(learner.discriminator_step) if record else learner.discriminator_step
        d_and_g_step = Recorded(learner.both_steps) if record else learner.both_steps
        if config.compile:
            learner.compile()
        losses = LossLog(config.log_every, world.device)
        stop = stack.enter_context(StopRequest())
        desk = Desk(config, folder, learner, card, prepared, watcher, world, progress, losses, looker)
        stack.callback(desk.close)
        watcher.started(_plan(config, prepared, learner, progress, total, world, half, record))

        # --- 4. The loop ---------------------------------------------------------------------------------------------
        step = progress.step
        end = min(total, config.stop_at) if config.stop_at else total
        while step < end:
            learner.set_learning_rate(learning_rate(step, total, config.lr, config.decay_from))
            g_learns = (step + 1) % config.d_steps == 0
            try:
                batch = feed.batch(step)  # x_real with c_o, targets c_t
                if g_learns:
                    losses.add(step + 1, d_and_g_step(batch))  # L_D of eq. 7, then L_G of eq. 8
                    learner.follow()  # the running average of G
                else:
                    losses.add(step + 1, d_step(batch))  # L_D of eq. 7
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                raise says_what_fits(learner, config.batch_size, world.size, folder.last) from error
            step += 1
            desk.after(step)
            asked = world.size == 1 or step % _ASK_OTHERS_EVERY == 0
            if asked and world.any(stop.requested):
                break

        # --- 5. The end ----------------------------------------------------------------------------------------------
        desk.finish(step, finished=step >= total)
        world.wait()
        return Outcome(step, total, step >= total, step < end, desk.best)


def _data(config: TrainConfig, world: Alone, watcher: Watcher) -> PreparedSet:
    """The crops; the leading process prepares what is missing, the others then read it."""
    if not config.data:
        raise UsageError("No data: give --data FOLDER, with one subfolder per expression (exprtool data --help).")
    if not world.leads:
        world.wait()
    prepared = load_prepared(
        config.data, config.image_size, crop=config.crop, detector=config.detector,
        test_fraction=config.test_fraction, split_seed=config.split_seed,
        scan_options=ScanOptions(
            all_angles=config.all_angles, ignore=config.ignore, free_labels=config.free_labels
        ),
        progress=watcher.prepared,
    )  # fmt: skip
    if world.leads:
        world.wait()
    return prepared


def _resume(folder: RunFolder, learner: Learner, prepared: PreparedSet, total: int) -> Progress:
    """Put the last checkpoint into the learner, if it is of this data."""
    progress, _ = read_progress(folder.last)
    if progress.data_hash != prepared.manifest_hash:
        raise TrainingError(
            f"{folder.last} was trained on other data (its manifest {progress.data_hash[:12]}, this one "
            f"{prepared.manifest_hash[:12]}): pictures, labels, people or crop settings differ. Give the same data, "
            "or start a new run in another --out."
        )
    return replace(load_training(folder.last, learner), total=total)


def _card(config: TrainConfig, prepared: PreparedSet) -> ModelCard:
    train = prepared.train
    people = {prepared.people[i] for i in train}
    data = {
        "name": ", ".join(root.resolve().name for root in config.data),
        "images": len(train),
        "people": len(people),
        "manifest": prepared.manifest_hash,
        "test_fraction": config.test_fraction,
        "split_seed": config.split_seed,
        "recipe": config.recipe,
    }
    card = ModelCard(config.generator(len(prepared.label_names)), prepared.label_names, prepared.template, 0)
    return replace(card, training_data=data, licence=config.licence or card.licence)


def _half(config: TrainConfig, device: torch.device) -> bool:
    """Whether the networks run in bfloat16. Asked for where the card has none is an error, not a slow surprise."""
    if config.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    half = config.precision == "bfloat16"
    if half and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UsageError("This card does not compute in bfloat16: use --precision float32.")
    return half


def _records(config: TrainConfig, world: Alone) -> bool:
    """Whether steps are recorded as CUDA graphs."""
    possible = world.device.type == "cuda" and world.size == 1
    if config.cuda_graphs == "on" and not possible:
        raise UsageError("--cuda-graphs on needs one CUDA device; leave it at auto.")
    return possible and config.cuda_graphs != "off"


def _looker(config: TrainConfig, world: Alone, prepared: PreparedSet) -> Looker | None:
    """Who looks at the held-out people; only the leading process does."""
    if not world.leads or not config.look_every:
        return None
    return Looker(prepared, config.look_images, config.classifier, "cpu")  # a few hundred crops now and then


def _choose_kernels(config: TrainConfig, device: torch.device) -> None:
    """Sizes never change, so trying every convolution kernel once pays; unless the bits must be the same each time."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = not config.deterministic
        torch.backends.cudnn.deterministic = config.deterministic


def _plan(
    config: TrainConfig, prepared: PreparedSet, learner: Learner, progress: Progress, total: int, world: Alone,
    half: bool, recorded: bool,
) -> Plan:  # fmt: skip
    name = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else str(world.device)
    return Plan(
        out=config.out, recipe=config.recipe, total=total, start=progress.step, images=len(prepared.train),
        people=len({prepared.people[i] for i in prepared.train}), held_out=len(prepared.test),
        labels=prepared.label_names, g_parameters=count_parameters(learner.generator),
        d_parameters=count_parameters(learner.discriminator), device=name, processes=world.size,
        batch_size=config.batch_size, half=half, recorded=recorded, notes=prepared.notes,
    )  # fmt: skip
