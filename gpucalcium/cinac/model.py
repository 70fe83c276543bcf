"""`CinacModel`: trains classifiers of activity and of cell types on annotated cells."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium import nets
from gpucalcium.cinac.cinac_file import CinacFileReader
from gpucalcium.cinac.patch_data import MoviePatchData
from gpucalcium.cinac.recording import CinacRecording, create_cinac_recording_from_cinac_file_segment
from gpucalcium.cinac.side_files import SideFiles
from gpucalcium.cinac.split import Part, Split, split_activity, split_cell_types
from gpucalcium.cinac.stratify import set_weights, stratified
from gpucalcium.cinac.training import History, Trainer
from gpucalcium.cinac.training_data import Annotated
from gpucalcium.cinac.training_files import load_optimizer, save_history, save_optimizer
from gpucalcium.cinac.training_params import TrainingParams
from gpucalcium.cinac.windows import most_active, window_starts
from gpucalcium.errors import ArrayShapeError, MovieNotFoundError, ParameterError

if TYPE_CHECKING:
    from gpucalcium.nets.cinac_network import Network

SUFFIXES = (".cinac", ".h5")
COPIES_OF_TYPES = 2  # windows and changed copies of the commonest type, for each window of it

log = logging.getLogger(__name__)


class CinacModel:
    """Trains a classifier: give it annotated cells, then ``prepare_model()`` and ``fit()``.

    Parameters
    ----------
    **kwargs
        Those of `TrainingParams`; `results_path` must be given.

    Attributes
    ----------
    params : TrainingParams
    network : Network or None
        Made by `prepare_model`, trained by `fit`.
    training, validation, test : list of MoviePatchData
        Windows, as `prepare_model` chose them.

    Raises
    ------
    TypeError
        A parameter that there is not, or no `results_path`.
    ParameterError, NotSupportedError
        One that cannot work.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.params = TrainingParams(**kwargs)
        given = self.params.seed_value
        self.seed = int(np.random.default_rng().integers(2**31)) if given is None else int(given)
        self.network: Network | None = None
        self.training: list[MoviePatchData] = []
        self.validation: list[MoviePatchData] = []
        self.test: list[MoviePatchData] = []
        self._annotated: list[Annotated] = []
        self._trainer: Trainer | None = None

    # ------------------------------------------------------------------ data

    def add_input_data_from_dir(self, dir_name: str | Path) -> None:
        """Add all .cinac files of a folder.

        Text files beside them, with one entry in each line, say more; an entry stands for all files in whose names it
        is found: ``*session_ids*.txt`` ("entry: session"), ``*only_for_training*.txt``, ``*to_keep*.txt`` (windows
        that are never dropped) and ``*to_exclude*.txt``.

        Raises
        ------
        MovieNotFoundError
            No such folder, or no .cinac file in it.
        """
        folder = Path(dir_name)
        files = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
        if not files:
            raise MovieNotFoundError(f"there is no .cinac file in {folder}")
        self.add_input_data(files, side_files=SideFiles.read(folder))

    def add_input_data(
        self, cinac_file_names: Sequence[str | Path], *, side_files: SideFiles | None = None
    ) -> None:
        """Add all segments of .cinac files.

        Parameters
        ----------
        cinac_file_names : sequence of path
        side_files : SideFiles, optional
            Which session a file is of, and which ones are only trained on, kept or left out. Default: each file is a
            session of its own.
        """
        side = SideFiles() if side_files is None else side_files
        for path in map(Path, cinac_file_names):
            if side.excludes(path.stem):
                continue
            reader = CinacFileReader(path)
            for segment in reader.get_all_segments():
                name = f"{path.stem}_{'_'.join(map(str, segment))}"
                recording = create_cinac_recording_from_cinac_file_segment(name, reader, segment)
                self._annotated.append(
                    Annotated(
                        recording,
                        0,
                        reader.get_segment_raster_dur(segment),
                        session_id=side.session(path.stem),
                        cell_type=recording.cell_type,
                        doubtful=reader.get_segment_doubtful_frames(segment),
                        only_for_training=side.trains_only(path.stem),
                        to_keep_absolutely=side.keeps(path.stem),
                        identity=(str(path), segment[0]),
                    )
                )

    def add_recording(
        self,
        recording: CinacRecording,
        raster: ArrayLike,
        *,
        cells: ArrayLike | None = None,
        cell_types: Sequence[str | None] | Mapping[int, str] | None = None,
        session_id: str | None = None,
        only_for_training: bool = False,
    ) -> None:
        """Add cells of a recording that is at hand as such.

        Parameters
        ----------
        recording : CinacRecording
        raster : (N, T)
            For each cell of the recording 1 in frames in which it is active.
        cells : (n,) int, optional
            Those that are annotated; default: all.
        cell_types : sequence of N names, or mapping of cell to name, optional
        session_id : str, optional
            Default: the identifier of the recording.
        only_for_training : bool

        Raises
        ------
        ArrayShapeError
            The raster is of other cells or frames.
        """
        shape, truth = (recording.get_n_cells(), recording.get_n_frames()), np.asarray(raster)
        if truth.shape != shape:
            raise ArrayShapeError(f"raster has shape {truth.shape}; {shape}, cells and frames, is expected")
        types = dict(cell_types) if isinstance(cell_types, Mapping) else dict(enumerate(cell_types or ()))
        for cell in range(shape[0]) if cells is None else np.asarray(cells).tolist():
            self._annotated.append(
                Annotated(
                    recording,
                    int(cell),
                    (truth[cell] != 0).astype(np.int8),
                    session_id=recording.identifier if session_id is None else session_id,
                    cell_type=types.get(int(cell)),
                    only_for_training=only_for_training,
                )
            )

    # ------------------------------------------------------------------ training

    def prepare_model(self) -> None:
        """Share out what was added, choose and balance windows, and make the network.

        Raises
        ------
        ParameterError
            Nothing was added; nothing is left for training or validation; `partly_trained_model` is another network.
        """
        if not self._annotated:
            raise ParameterError(
                "there is nothing to train on: call add_input_data or add_input_data_from_dir first"
            )
        p, rng = self.params, np.random.default_rng(self.seed)
        if p.cell_type_classifier_mode:
            split = split_cell_types(self._annotated, p.split_values, rng)
            make = self._type_windows
        else:
            split = split_activity(
                self._annotated,
                p.split_values,
                p.window_len,
                rng,
                keep_short_segments=p.keep_short_segments,
                short_only_for_training=p.keep_short_segments_only_for_training,
            )
            make = self._activity_windows
        self.training, self.validation, self.test = make(split, rng)
        if p.max_validation_patches is not None:
            chosen = np.sort(rng.permutation(len(self.validation))[: p.max_validation_patches])
            self.validation = [self.validation[i] for i in chosen]
        for name in ("training", "validation"):
            if not getattr(self, name):
                raise ParameterError(
                    f"there are no windows for {name}: give longer segments, or other shares in main_ratio_balance"
                )
        log.info(
            "windows: %d for training, %d for validation, %d for the test",
            len(self.training),
            len(self.validation),
            len(self.test),
        )
        self.network = self._network()
        self._trainer = Trainer(self.network, p.schedule, self.seed)
        if p.partly_trained_model is not None:
            load_optimizer(self._trainer.optimizer, Path(p.partly_trained_model))

    def fit(self) -> History:
        """Train; each epoch's network is written to `results_path` as it is done.

        Of epoch 1 ``transient_classifier_weights_01.json`` and ``.safetensors``, which `nets.load_network` reads;
        ``cell_type_classifier_...`` of types; ``..._full_model_01`` where the state of the optimiser lies beside them.
        And ``metrics_history.npz``, with one value for each epoch.

        Returns
        -------
        History

        Raises
        ------
        ParameterError
            `prepare_model` was not called.
        """
        if self.network is None or self._trainer is None:
            raise ParameterError("there is no network to train yet: call prepare_model first")
        folder = Path(self.params.results_path)
        folder.mkdir(parents=True, exist_ok=True)
        return self._trainer.fit(self.training, self.validation, self._after_epoch)

    def evaluate(self, patches: Sequence[MoviePatchData] | None = None) -> dict[str, float]:
        """Loss and accuracy, and of activity precision, recall and F1 of frames, of windows; default: the test set."""
        if self._trainer is None:
            raise ParameterError("there is no network yet: call prepare_model first")
        wanted = self.test if patches is None else patches
        if not wanted:
            raise ParameterError("there is no test set: give split_values a third share, or windows")
        return self._trainer.evaluate(wanted)

    def _after_epoch(self, epoch: int, history: History) -> None:
        p, folder = self.params, Path(self.params.results_path)
        save_history(folder / "metrics_history.npz", history)
        if not p.with_model_check_point or self.network is None or self._trainer is None:
            return
        what = "cell_type" if p.cell_type_classifier_mode else "transient"
        kept = "weights" if p.save_only_the_weitghs else "full_model"
        model_file, _ = nets.save_network(self.network, folder / f"{what}_classifier_{kept}_{epoch:02d}")
        if not p.save_only_the_weitghs:
            save_optimizer(self._trainer.optimizer, model_file)

    def _network(self) -> Network:
        """A new network, or the one to start from."""
        p = self.params
        if p.partly_trained_model is None:
            return nets.build_network(p.spec, seed=self.seed, device=p.device)
        network, wanted = nets.load_network(Path(p.partly_trained_model), device=p.device), p.spec.plan()
        for name in ("kind", "n_classes", "window_len", "patch_size", "inputs"):
            if getattr(network, name) != getattr(wanted, name):
                raise ParameterError(
                    f"partly_trained_model has {name} {getattr(network, name)}, the parameters say "
                    f"{getattr(wanted, name)}"
                )
        return network

    # ------------------------------------------------------------------ windows

    def _activity_windows(
        self, split: Split, rng: np.random.Generator
    ) -> tuple[list[MoviePatchData], list[MoviePatchData], list[MoviePatchData]]:
        p = self.params
        training = [w for part in split.training for w in self._of_activity(part, p.overlap_value)]
        training = stratified(training, p.balance, rng)
        if p.weighted_windows:
            set_weights(training)
        others = [
            [w for part in parts for w in self._of_activity(part, 0.0)]
            for parts in (split.validation, split.test)
        ]
        return training, others[0], others[1]

    def _of_activity(self, part: Part, overlap: float) -> list[MoviePatchData]:
        """Windows of part of a segment, with the truth of each frame."""
        one, first, stop = part
        length = self.params.window_len
        truth = one.truth if self.params.using_multi_class == 1 else one.events.codes(one.n_frames)
        found = []
        for start in first + window_starts(stop - first, length, overlap):
            window = self._window(one, int(start), truth[start : start + length])
            window.movie_info["events"] = one.events.window(int(start), length)
            found.append(window)
        return found

    def _type_windows(
        self, split: Split, rng: np.random.Generator
    ) -> tuple[list[MoviePatchData], list[MoviePatchData], list[MoviePatchData]]:
        p, types = self.params, self.params.cell_types
        training, validation, test = (
            [w for one, _, _ in parts for w in self._of_type(one, types.code(str(one.cell_type)))]
            for parts in (split.training, split.validation, split.test)
        )
        codes = np.array([w.ground_truth for w in training], np.int64)
        counts = np.bincount(codes, minlength=len(types.names))
        for window, code in zip(training, codes, strict=True):
            wanted = round(COPIES_OF_TYPES * counts.max() / counts[code]) - 1
            window.n_augmentations_to_perform = min(wanted, p.balance.max_copies)
        return training, validation, test

    def _of_type(self, one: Annotated, code: int) -> list[MoviePatchData]:
        """The windows of a segment in which the cell is most active."""
        p = self.params
        starts = window_starts(one.n_frames, p.window_len, 0.0)
        avoided = np.asarray(p.frames_to_avoid_for_cell_type)
        starts = np.array(
            [s for s in starts if not ((avoided >= s) & (avoided < s + p.window_len)).any()], np.int64
        )
        if len(starts) == 0 or one.n_frames < p.window_len:
            return []
        chosen = most_active(one.smooth_trace, starts, p.window_len, p.n_windows_len_to_keep_by_cell)
        return [self._window(one, int(start), code) for start in chosen]

    def _window(self, one: Annotated, start: int, truth: NDArray | int) -> MoviePatchData:
        return MoviePatchData(
            one.recording,
            one.cell,
            start,
            self.params.window_len,
            ground_truth=truth,
            session_id=one.session_id,
            to_keep_absolutely=one.to_keep_absolutely,
        )
