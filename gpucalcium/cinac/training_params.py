"""What `CinacModel` takes: every parameter, its meaning and its default."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from gpucalcium.cinac.cell_types import CellTypes, read_cell_types
from gpucalcium.cinac.per_frame import PerFrameSpec
from gpucalcium.cinac.stratify import OFF, Balance, Shares
from gpucalcium.cinac.training import Schedule
from gpucalcium.errors import NotSupportedError, ParameterError
from gpucalcium.nets.spec import INPUTS, NetworkSpec

PathLike = str | os.PathLike[str]
N_ACTIVITY_CLASSES = (1, 3)


@dataclass(frozen=True, kw_only=True)
class TrainingParams:
    """How a classifier is made and trained."""

    results_path: PathLike
    """Folder for the network of each epoch and the history; made if it is not there."""
    n_epochs: int = 30
    batch_size: int = 8
    """Windows in a step."""
    window_len: int = 100
    """Frames in a window."""
    max_width: int = 25
    """Columns of a patch, px."""
    max_height: int = 25
    """Rows of a patch, px; as many as columns."""
    overlap_value: float = 0.9
    """Share of a window that the next one repeats, in training; others do not overlap."""
    max_n_transformations: int = 6
    """Changed copies of a window, at most."""
    buffer: float | None = 1
    """Pixels by which cells are grown."""
    split_values: tuple[float, float, float] = (0.8, 0.2, 0.0)
    """Shares of training, validation and test."""
    using_multi_class: int = 1
    """Activity: 1, its probability; 3, what is real, fake and neither. Cell types: 1, one of two types is predicted
    where the YAML file does not say."""
    optimizer_choice: str = "RMSprop"
    """"RMSprop", "Adam" or "SGD"."""
    learning_rate_start: float = 1e-3
    learning_rate_reduction_patience: int = 2
    """Epochs without a better validation accuracy after which the learning rate is halved."""
    early_stop_patience: int = 15
    """Epochs likewise after which training stops; the best weights are kept."""
    dropout_value: float = 0.5
    dropout_value_rnn: float = 0.5
    dropout_at_the_end: float = 0
    with_batch_normalization: bool = False
    activation_fct: str = "swish"
    without_bidirectional: bool = False
    conv_filters: tuple[int, ...] = (64, 64, 128, 128)
    lstm_layers_size: tuple[int, ...] = (128, 256)
    bin_lstm_size: int = 256
    seed_value: int | None = None
    """Of the split, the balance, the weights, the order and the changes; None: another one each time."""
    main_ratio_balance: tuple[float, float, float] = (0.7, 0.2, 0.1)
    """Shares of windows with real transients, with fake ones, with neither."""
    crop_non_crop_ratio_balance: Shares = OFF
    """Shares of windows whose transients are all cut by the border, and of others; negative: as they come."""
    non_crop_ratio_balance: Shares = OFF
    """Of these others, shares of those with one whole transient and with several."""
    keep_short_segments: int = 2000
    """Segments of fewer frames are short: they are not cut in time. 0: only those that cannot be cut."""
    keep_short_segments_only_for_training: bool = True
    """Whether short ones are trained on only; else they go to one set or the other."""
    cell_type_classifier_mode: bool = False
    """Train a classifier of cell types, not of activity."""
    cell_type_categories_yaml_file: PathLike | None = None
    """Types of cells; default: interneuron, pyramidal, noise."""
    with_all_pixels: bool = False
    """Cell types: whether the whole patch is a second input."""
    n_windows_len_to_keep_by_cell: int = 2
    """Cell types: windows of each segment, those in which the cell is most active."""
    frames_to_avoid_for_cell_type: tuple[int, ...] = ()
    """Cell types: windows that hold one of these frames of the recording are left out."""
    save_only_the_weitghs: bool = True
    """Each epoch's files hold the network only; else also the state of the optimiser, to go on from it."""
    partly_trained_model: PathLike | None = None
    """Model file of a network to start from, with the state of its optimiser if that lies beside it."""
    using_splitted_tiff_cinac_movie: bool = False
    """Not supported: patches are read from the .cinac files themselves."""
    apply_attention: bool = True
    apply_attention_before_lstm: bool = True
    use_bin_at_al_version: bool = True
    use_single_attention_vector: bool = False
    with_augmentation_for_training_data: bool = True
    """Changed copies: mirrored, turned, displaced."""
    with_learning_rate_reduction: bool = True
    with_early_stopping: bool = True
    with_model_check_point: bool = True
    """Write the network of each epoch."""
    with_shuffling: bool = True
    per_frame_head: bool = False
    """Activity: one last layer for every frame, in place of one for the whole window (`PerFrameSpec`)."""
    weighted_windows: bool = True
    """Windows weigh by what they show (`stratify.set_weights`); else all alike."""
    patches_per_epoch: int | None = None
    """Windows in an epoch, drawn from those there are; None: all."""
    max_validation_patches: int | None = None
    """Windows in the validation set, drawn from those there are; None: all."""
    clip_norm: float | None = None
    """Longest gradient of a step; None: any."""
    norm_batches: int = 0
    """Batches by which batch normalisation is measured anew after each epoch; 0: running means count."""
    device: str | None = None
    """"cpu", "cuda" or "cuda:1"; default: the active device of the library."""

    def __post_init__(self) -> None:
        if self.max_width != self.max_height:
            raise NotSupportedError(
                f"max_width={self.max_width}, max_height={self.max_height}: only square patches are supported, as "
                "images and their turned copies go through the same layers"
            )
        if self.using_splitted_tiff_cinac_movie:
            raise NotSupportedError(
                "using_splitted_tiff_cinac_movie=True is not supported: patches are read from the .cinac files, and "
                "no copies of them are written"
            )
        if not self.cell_type_classifier_mode and self.using_multi_class not in N_ACTIVITY_CLASSES:
            raise ParameterError(
                f"using_multi_class={self.using_multi_class}: activity has 1 class, or 3 (real, fake, neither)"
            )
        if not 0 <= self.overlap_value < 1:
            raise ParameterError(f"overlap_value={self.overlap_value}: 0 <= overlap_value < 1 is expected")
        for name in ("patches_per_epoch", "max_validation_patches"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParameterError(f"{name}={value}: it must be 1 or more")
        self.balance, self.schedule, self.spec  # noqa: B018 - each checks its part

    @property
    def balance(self) -> Balance:
        """What the training set is made of."""
        most = self.max_n_transformations if self.with_augmentation_for_training_data else 0
        return Balance(
            self.main_ratio_balance, self.crop_non_crop_ratio_balance, self.non_crop_ratio_balance, most
        )

    @property
    def schedule(self) -> Schedule:
        """How long and how fast it is trained."""
        return Schedule(
            n_epochs=self.n_epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer_choice,
            learning_rate=self.learning_rate_start,
            reduce_after=self.learning_rate_reduction_patience if self.with_learning_rate_reduction else None,
            stop_after=self.early_stop_patience if self.with_early_stopping else None,
            restore_best=self.with_early_stopping,
            shuffle=self.with_shuffling,
            patches_per_epoch=self.patches_per_epoch,
            clip_norm=self.clip_norm,
            norm_batches=self.norm_batches,
        )

    @property
    def cell_types(self) -> CellTypes:
        """Types that are told apart."""
        return read_cell_types(self.cell_type_categories_yaml_file, self.using_multi_class)

    @property
    def spec(self) -> NetworkSpec:
        """The network."""
        types = self.cell_type_classifier_mode
        n_inputs = 1 + self.with_all_pixels if types else len(INPUTS)
        sizes: dict[str, Any] = {
            "kind": "cell_type" if types else "activity",
            "n_classes": self.cell_types.n_classes if types else self.using_multi_class,
            "n_inputs": n_inputs,
            "window_len": self.window_len,
            "patch_size": self.max_width,
            "activation": self.activation_fct,
            "conv_filters": tuple(self.conv_filters),
            "lstm_sizes": tuple(self.lstm_layers_size),
            "bin_lstm_size": self.bin_lstm_size,
            "bidirectional": not self.without_bidirectional,
            "dropout": self.dropout_value,
            "dropout_rnn": self.dropout_value_rnn,
            "dropout_at_the_end": self.dropout_at_the_end,
            "batch_norm": self.with_batch_normalization,
            "attention": self.apply_attention,
            "attention_before_lstm": self.apply_attention_before_lstm,
            "single_attention_vector": self.use_single_attention_vector,
            "use_bin_lstm": self.use_bin_at_al_version,
            "mask_mode": "corrected",
            "buffer": None if self.buffer is None else float(self.buffer),
        }
        return (PerFrameSpec if self.per_frame_head else NetworkSpec)(**sizes)
