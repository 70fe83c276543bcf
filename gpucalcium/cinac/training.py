"""The training loop: batches of windows, their loss, the schedule of the learning rate, and when to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import nets
from gpucalcium.cinac._optional import optional
from gpucalcium.cinac.augment import draw_affines, transformed
from gpucalcium.cinac.metrics import Scores, frame_scores
from gpucalcium.cinac.patch_data import MoviePatchData
from gpucalcium.cinac.training_data import WindowLoader
from gpucalcium.errors import ParameterError
from gpucalcium.nets._torch_state import tensor_cores

if TYPE_CHECKING:
    import torch

    from gpucalcium.nets.cinac_network import Network

OPTIMIZERS = ("RMSprop", "Adam", "SGD")
RHO, EPSILON = 0.9, 1e-7  # of RMSprop, as Keras has them
LEAST_RATE, RATE_FACTOR = 1e-8, 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast a network is trained."""

    n_epochs: int = 30
    batch_size: int = 8
    """Windows in a step."""
    optimizer: str = "RMSprop"
    """One of `OPTIMIZERS`."""
    learning_rate: float = 1e-3
    """At the start."""
    reduce_after: int | None = 2
    """Epochs without a better validation accuracy after which the learning rate is halved, to 1e-8 at least; None:
    never."""
    stop_after: int | None = 15
    """Epochs likewise after which training stops; None: never."""
    restore_best: bool = True
    """Whether the weights at the end are those of the best validation accuracy."""
    shuffle: bool = True
    """Whether windows come in a new order in each epoch."""
    patches_per_epoch: int | None = None
    """Windows in an epoch, of those there are; None: all."""
    clip_norm: float | None = None
    """Longest gradient of a step; None: any."""
    norm_batches: int = 0
    """Batches by which means and variances of batch normalisation are measured anew after each epoch, with all features
    there; 0: the running ones count, which lag behind the weights and saw features dropped."""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ParameterError(f"optimizer_choice={self.optimizer!r}: it is one of {', '.join(OPTIMIZERS)}")
        for name in ("n_epochs", "batch_size", "patches_per_epoch", "reduce_after", "stop_after"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParameterError(f"{name}={value}: it must be 1 or more")
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ParameterError(f"{name}={value}: it must be above 0")


@dataclass
class History:
    """What each epoch came to; one value for each epoch in each list."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Add an epoch."""
        for name, value in values.items():
            self.values.setdefault(name, []).append(float(value))

    @property
    def accuracies(self) -> list[float]:
        """Of the validation set."""
        return self.values.get("val_accuracy", [])

    def since_best(self) -> int:
        """Epochs since the best validation accuracy."""
        return len(self.accuracies) - 1 - int(np.argmax(self.accuracies))


AfterEpoch = Callable[[int, History], object]


class Trainer:
    """Trains a network.

    Parameters
    ----------
    network : Network
        Its weights are changed.
    schedule : Schedule
    seed : int
        Of the order of windows, the changes made to copies, and dropout. Global random states are not touched.
    """

    def __init__(self, network: Network, schedule: Schedule, seed: int) -> None:
        self._torch: Any = optional("torch", "training", "nets")
        self.network, self.schedule = network, schedule
        self._loader = WindowLoader(network.plan)
        self._seed, self._rng = seed, np.random.default_rng(seed)
        self._draws = self._torch.Generator().manual_seed(seed)
        weights = [p for p in network.torch_module.parameters() if p.requires_grad]
        self.optimizer = self._optimizer(weights)
        self.history = History()
        self._best: dict[str, torch.Tensor] | None = None

    def _optimizer(self, weights: Sequence[torch.Tensor]) -> torch.optim.Optimizer:
        optim, rate = self._torch.optim, self.schedule.learning_rate
        match self.schedule.optimizer:
            case "RMSprop":
                return optim.RMSprop(weights, lr=rate, alpha=RHO, eps=EPSILON)
            case "Adam":
                return optim.Adam(weights, lr=rate, eps=EPSILON)
            case _:
                return optim.SGD(weights, lr=rate)

    def fit(
        self,
        training: Sequence[MoviePatchData],
        validation: Sequence[MoviePatchData],
        after_epoch: AfterEpoch | None = None,
    ) -> History:
        """Train until the epochs are over or nothing gets better.

        Parameters
        ----------
        training, validation : sequence of MoviePatchData
            With `ground_truth`. Of those for training `n_augmentations_to_perform` changed copies are trained on
            besides, drawn anew in each epoch.
        after_epoch : callable, optional
            ``after_epoch(epoch, history)``, epochs counted from 1.

        Returns
        -------
        History
        """
        torch, module = self._torch, self.network.torch_module
        cuda = [self.network.device] if self.network.device.type == "cuda" else []
        with nets.cpu_threads(), tensor_cores(False), torch.random.fork_rng(devices=cuda):
            torch.manual_seed(self._seed)
            for epoch in range(1, self.schedule.n_epochs + 1):
                loss, accuracy = self._epoch(training)
                if self.schedule.norm_batches:
                    self._measure_norms(training)
                scores = self.evaluate(validation)
                self.history.add(
                    loss=loss,
                    accuracy=accuracy,
                    learning_rate=self.optimizer.param_groups[0]["lr"],
                    **{f"val_{name}": value for name, value in scores.items()},
                )
                log.info("epoch %d: %s", epoch, self._line())
                waited = self.history.since_best()
                if waited == 0 and self.schedule.restore_best:
                    self._best = {name: value.clone() for name, value in module.state_dict().items()}
                if after_epoch is not None:
                    after_epoch(epoch, self.history)
                if self.schedule.reduce_after and waited and waited % self.schedule.reduce_after == 0:
                    for group in self.optimizer.param_groups:
                        group["lr"] = max(group["lr"] * RATE_FACTOR, LEAST_RATE)
                if self.schedule.stop_after and waited >= self.schedule.stop_after:
                    break
            if self._best is not None:
                module.load_state_dict(self._best)
        module.eval()
        return self.history

    def _line(self) -> str:
        return ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.history.values.items())

    def _epoch(self, patches: Sequence[MoviePatchData]) -> tuple[float, float]:
        """Train on all windows once; mean loss and accuracy."""
        module = self.network.torch_module
        module.train()
        total = right = count = weight = 0.0
        for batch, changes in self._batches(patches):
            windows, truth, weights = batch
            self.optimizer.zero_grad()
            logits = module(self._inputs(windows, changes), logits=True)
            each = self._losses(logits, truth)
            loss = (each * weights).sum() / weights.sum()
            loss.backward()
            if self.schedule.clip_norm is not None:
                self._torch.nn.utils.clip_grad_norm_(module.parameters(), self.schedule.clip_norm)
            self.optimizer.step()
            total += float((each.detach() * weights).sum())
            weight += float(weights.sum())
            hits = self._hits(logits.detach(), truth)
            right, count = right + float(hits.sum()), count + hits.numel()
        module.eval()
        return total / weight, right / count

    def _measure_norms(self, patches: Sequence[MoviePatchData]) -> None:
        """Means and variances of batch normalisation over some batches, with the weights as they are now."""
        module, kind = self.network.torch_module, self._torch.nn.modules.batchnorm._BatchNorm
        norms = [part for part in module.modules() if isinstance(part, kind)]
        momenta = [part.momentum for part in norms]
        module.eval()
        for part in norms:
            part.reset_running_stats()
            part.momentum = None  # a plain mean over batches
            part.train()
        with self._torch.no_grad():
            for (windows, _, _), changes in islice(self._batches(patches), self.schedule.norm_batches):
                module(self._inputs(windows, changes))
        for part, momentum in zip(norms, momenta, strict=True):
            part.momentum = momentum
        module.eval()

    def evaluate(self, patches: Sequence[MoviePatchData]) -> dict[str, float]:
        """Loss and accuracy; of activity also precision, recall and F1 of frames."""
        torch, module = self._torch, self.network.torch_module
        losses, hits, scores = [], [], Scores(0, 0, 0, 0)
        with torch.inference_mode(), nets.cpu_threads():
            module.eval()
            for first in range(0, len(patches), self.schedule.batch_size):
                part = patches[first : first + self.schedule.batch_size]
                windows, truth, _ = self._on_device(self._load(part))
                logits = module(self._inputs(windows, None), logits=True)
                losses.append(self._losses(logits, truth))
                hits.append(self._hits(logits, truth).float().flatten())
                if self.network.kind == "activity":
                    scores += frame_scores(*(x.cpu().numpy() for x in self._active(logits, truth)))
        found = {"loss": float(torch.cat(losses).mean()), "accuracy": float(torch.cat(hits).mean())}
        if self.network.kind == "activity":
            found |= {"precision": scores.ppv, "recall": scores.sensitivity, "f1": scores.f1}
        return found

    # ------------------------------------------------------------------ batches

    def _batches(self, patches: Sequence[MoviePatchData]) -> Iterator[tuple[Any, torch.Tensor | None]]:
        """Batches on the device, and the changes to make to their windows; the next one is read meanwhile."""
        of = np.repeat(np.arange(len(patches)), [1 + p.n_augmentations_to_perform for p in patches])
        is_copy = np.append(False, of[1:] == of[:-1])
        order = self._rng.permutation(len(of)) if self.schedule.shuffle else np.arange(len(of))
        order = order[: self.schedule.patches_per_epoch]
        parts = np.array_split(order, -(-len(order) // self.schedule.batch_size))
        with ThreadPoolExecutor(1) as reader:
            waiting = reader.submit(self._load, [patches[i] for i in of[parts[0]]])
            for k, part in enumerate(parts):
                loaded = waiting.result()
                if k + 1 < len(parts):
                    waiting = reader.submit(self._load, [patches[i] for i in of[parts[k + 1]]])
                yield self._on_device(loaded), self._changes(is_copy[part])

    def _changes(self, is_copy: NDArray[np.bool_]) -> torch.Tensor | None:
        """(n, 2, 3) maps of the windows; of those that are no copies the identity. None if there are no copies."""
        if not is_copy.any():
            return None
        affines = draw_affines(len(is_copy), self.network.patch_size, self._draws)
        affines[~self._torch.from_numpy(is_copy)] = self._torch.eye(2, 3)
        return affines

    def _load(self, patches: Sequence[MoviePatchData]) -> tuple[NDArray, NDArray, NDArray]:
        truth = np.stack([np.asarray(p.ground_truth) for p in patches])
        weights = np.array([p.weight for p in patches], np.float32)
        return self._loader.load(patches), truth, weights

    def _on_device(self, loaded: tuple[NDArray, NDArray, NDArray]) -> list[torch.Tensor]:
        return [self._torch.from_numpy(values).to(self.network.device) for values in loaded]

    def _inputs(self, windows: torch.Tensor, changes: torch.Tensor | None) -> list[torch.Tensor]:
        """Windows (n, I, L, P, P), changed, as one (n, L, P, P) for each input."""
        if changes is not None:
            windows = transformed(windows.flatten(1, 2), changes).unflatten(1, windows.shape[1:3])
        return list(windows.unbind(1))

    # ------------------------------------------------------------------ losses

    def _losses(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """(n,) cross-entropy of each window, the mean over its frames."""
        functional = self._torch.nn.functional
        if self.network.n_classes == 1:
            target = truth.reshape(logits.shape).to(logits.dtype)
            each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        else:
            classes = logits.movedim(-1, 1) if logits.ndim == 3 else logits
            each = functional.cross_entropy(classes, truth.long(), reduction="none")
        return each.reshape(len(truth), -1).mean(dim=1)

    def _hits(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Whether each frame, or window, is right."""
        if self.network.n_classes == 1:
            return (logits >= 0).reshape(truth.shape) == (truth > 0)
        return logits.argmax(dim=-1) == truth

    def _active(self, logits: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, L) true and predicted activity; where there are classes, the first is activity."""
        if self.network.n_classes == 1:
            return truth > 0, (logits >= 0).reshape(truth.shape)
        return truth == 0, logits.argmax(dim=-1) == 0
