"""What a user decides about camouflaged object detection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invattn import ATTENTION_KINDS, RECIPES
from invattn._errors import check_name
from invattn.experiments.kit.training.optimisation import PRECISIONS

if TYPE_CHECKING:  # both need libraries that take seconds to import
    from invattn.experiments.camouflage.network import NetworkConfig
    from invattn.experiments.kit.training.machines import Machines

SYNTHETIC = "synthetic"
NO_ATTENTION = "none"
KINDS = (NO_ATTENTION, *ATTENTION_KINDS)
TABLE_RECIPES = ("unconstrained", "paper", "certified")
"""The recipes of the table's rows; ``all`` means these."""

BACKBONES = ("resnet50", "small")

QUICK: Mapping[str, Any] = {
    "backbone": "small",
    "backbone_weights": "none",
    "image_size": 96,
    "difficulty": 0.0,
    "train_size": 600,
    "test_size": 100,
    "batch_size": 4,
    "pretrain_epochs": 16,
    "epochs": 2,
    "lr": 7e-4,
    "lr_decay": 0.2,
    "vary": True,
    "workers": 2,
}
"""What ``--quick`` changes, where nothing else is given."""

_NO_INFLUENCE = ("output", "resume", "checkpoint_minutes", "preview", "quick")
_OTHER_CELLS = ("attention", "recipe", "repeats", "devices", "nodes", "accelerator", "workers")
_LARGEST_LR = 1e6


@dataclass(frozen=True, kw_only=True)
class CamouflageConfig:
    """Options of ``invattn camouflage train``; the defaults are the paper's, where it names them.

    Attributes:
        output: Folder for the results.
        data: ``synthetic``, or a folder with ``Imgs`` and ``GT`` to train on.
        test: Test sets, name and folder of each; synthetic data have one of their own.
        attention: Kinds, separated by commas; ``none`` is the paper's Base row; ``all``.
        recipe: Recipes, separated by commas; ``all`` is unconstrained, paper and certified.
        image_size: Side in pixels to which images are resized.
        backbone: ``resnet50`` or ``small``.
        backbone_weights: ``hub``, ``none``, or a folder with a ResNet of the transformers library.
        epochs: Passes over the training images.
        batch_size: Images in a batch.
        lr: Learning rate of Adam at the start.
        lr_decay: Its factor from epoch to epoch, reached by equal factors at every step; 1 keeps it. The paper names no
            schedule.
        vary: Whether training images are turned, mirrored and recoloured at random; the paper names no such thing.
        pretrain_epochs: Passes over the training images that train the backbone under a light head, before and once for
            all rows and repeats; 0 leaves that out, as the paper does, whose backbone knows ImageNet.
        lipschitz: c, the bound of certified attention, coefficient of the constrained maps of other recipes.
        difficulty: Of synthetic pairs, 0..1.
        train_size: Training images; None: all of a folder, 1,000 synthetic ones.
        test_size: Images of each test set; None: all of a folder, 200 synthetic ones.
        repeats: Trainings of each row with seeds ``seed``, ``seed + 1``, ...
        seed: Decides everything that is random.
        precision: fp32, or bf16 for products of matrices in bfloat16 during training.
        accelerator: cpu, gpu, or auto.
        devices: Processes, or GPUs, of each machine that share every batch.
        nodes: Machines.
        workers: Rows that are trained at the same time, each in a process with its part of the threads.
        checkpoint_minutes: Time between saves of an unfinished training.
        preview: Whether a map is drawn after each epoch for TensorBoard.
        resume: Continue an interrupted training.

    Raises:
        ValueError: If a name is unknown or a number out of range.
    """

    output: Path
    data: str = SYNTHETIC
    test: tuple[tuple[str, Path], ...] = ()
    attention: str = "all"
    recipe: str = "all"
    image_size: int = 352
    backbone: str = "resnet50"
    backbone_weights: str = "hub"
    epochs: int = 30
    batch_size: int = 6
    lr: float = 2.5e-5
    lr_decay: float = 1.0
    vary: bool = False
    pretrain_epochs: int = 0
    lipschitz: float = 0.9
    difficulty: float = 0.5
    train_size: int | None = None
    test_size: int | None = None
    repeats: int = 1
    seed: int = 0
    precision: str = "fp32"
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int = 1
    checkpoint_minutes: float = 2.0
    preview: bool = True
    resume: bool = False

    def __post_init__(self) -> None:
        check_name(self.backbone, BACKBONES, what="backbone")
        check_name(self.precision, PRECISIONS, what="precision")
        for name in ("epochs", "batch_size", "repeats", "workers", "train_size", "test_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}.")
        if self.image_size < 33:
            raise ValueError(
                f"image_size must be at least 33, so that the coarsest level has 2 x 2 places; got {self.image_size}."
            )
        if not 0 < self.lr <= _LARGEST_LR or not 0 < self.lr_decay <= 1 or not 0 < self.lipschitz < 1:
            raise ValueError("lr must be positive, lr_decay above 0 and at most 1, lipschitz strictly between 0 and 1.")
        if self.pretrain_epochs < 0:
            raise ValueError(f"pretrain_epochs must be at least 0; got {self.pretrain_epochs}.")
        if self.workers > 1 and self.devices * self.nodes > 1:
            raise ValueError("workers train different rows and devices share one: give --workers 1, or --devices 1.")
        if self.pretrain_epochs and self.nodes > 1:
            raise ValueError("pretrain_epochs is for one machine: train there first, or give --pretrain-epochs 0.")
        if not 0 <= self.difficulty <= 1 or not self.checkpoint_minutes > 0:
            raise ValueError("difficulty must lie between 0 and 1, and checkpoint_minutes be positive.")
        names = [name for name, _ in self.test]
        if len(set(names)) < len(names):
            raise ValueError(f"two test sets have one name ({', '.join(names)}): give each its own.")
        if self.backbone == "small" and self.backbone_weights == "hub":
            raise ValueError("backbone_weights hub are those of resnet50; give none with backbone small.")
        self.variants()

    def variants(self) -> tuple[tuple[str, str], ...]:
        """Return (attention, recipe) of every row of the table, each once."""
        kinds = _names(self.attention, KINDS, everything=KINDS, what="attention")
        recipes = _names(self.recipe, RECIPES, everything=TABLE_RECIPES, what="recipe")
        pairs = [(kind, NO_ATTENTION if kind == NO_ATTENTION else form) for kind in kinds for form in recipes]
        return tuple(dict.fromkeys(pairs))

    def network_config(self, attention: str, recipe: str) -> NetworkConfig:
        """Return what the network of a row is built from."""
        from invattn.experiments.camouflage.network import NetworkConfig
        from invattn.recipes import make_recipe

        return NetworkConfig(
            kind=attention,
            recipe=None if attention == NO_ATTENTION else make_recipe(recipe),
            lipschitz=self.lipschitz,
            backbone=self.backbone,
            image_size=self.image_size,
        )

    def threads(self, available: int) -> int:
        """Return the threads of torch in each process."""
        return max(1, available // self.workers)

    def machines(self) -> Machines:
        """Return what training runs on."""
        from invattn.experiments.kit.training.machines import Machines

        return Machines(devices=self.devices, nodes=self.nodes, accelerator=self.accelerator)

    def settings(self) -> dict[str, Any]:
        """Return every option that may change the numbers, as run; of folders, the names only."""
        plain = {name: value for name, value in vars(self).items() if name not in _NO_INFLUENCE}
        weights = self.backbone_weights if self.backbone_weights in ("hub", "none") else "PATH"
        data = self.data if self.data == SYNTHETIC else Path(self.data).name
        return plain | {"data": data, "backbone_weights": weights, "test": [name for name, _ in self.test]}

    def cell_settings(self) -> dict[str, Any]:
        """Return the settings that every row depends on."""
        return {name: value for name, value in self.settings().items() if name not in _OTHER_CELLS}

    def command(self) -> str:
        """Return a command line that repeats the run, with placeholders for the folders of this machine."""
        words = ["invattn camouflage train"]
        for name, value in self.settings().items():
            if name == "test":
                words += [f"--test {test}=DIR" for test in value]
            elif value is not None:
                shown = "DIR" if name == "data" and value != SYNTHETIC else value
                words.append(f"--{name.replace('_', '-')} {shown}")
        return " ".join([*words, "--output OUT"])


def camouflage_config(given: Mapping[str, Any]) -> CamouflageConfig:
    """Return the options of a run: those given, for the others those of ``quick`` where it is asked for.

    Args:
        given: Option name -> value, ``output`` at least; ``quick`` too.

    Raises:
        ValueError: If a name is unknown or a number out of range.
    """
    own = {name: value for name, value in given.items() if name != "quick"}
    return CamouflageConfig(**{**(QUICK if given.get("quick") else {}), **own})


def _names(text: str, known: tuple[str, ...], *, everything: tuple[str, ...], what: str) -> tuple[str, ...]:
    names: list[str] = []
    for part in text.split(","):
        name = check_name(part.strip(), (*known, "all"), what=what)
        names.extend(everything if name == "all" else [name])
    return tuple(dict.fromkeys(names))
