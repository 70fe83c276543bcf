"""Networks that tell from patches of a movie when a cell is active, or of which type it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, GpuUnavailable, NetworkFileError, ParameterError
from gpucalcium.nets._torch_state import inference
from gpucalcium.nets.layers import Attention, CinacModule, Lstm
from gpucalcium.nets.plan import Plan
from gpucalcium.nets.spec import NetworkSpec

log = logging.getLogger(__name__)

PRECISIONS = ("float32", "tf32", "bf16")
FRAMES_AT_ONCE = {"cpu": 64, "cuda": 4096}  # CPU: activations stay in the cache; GPU: about 1 GiB of them
WINDOWS_AT_ONCE = {"cpu": 32, "cuda": 512}


class Network:
    """A network ready to be run; made by `load_network` and `build_network`.

    Runs in evaluation mode, without gradients, on one device. Nothing it does changes PyTorch's settings or the
    global random state.

    Parameters
    ----------
    module : CinacModule
        Its layers and weights; taken over, not copied.
    device : str, optional
        "cpu", "cuda" or "cuda:1"; default: the active device of the library.
    precision : {"float32", "tf32", "bf16"}
        float32: rounded as float32 everywhere. tf32: products of a GPU on TF32 tensor cores (10-bit mantissa;
        no other on a CPU). bf16: besides, the encoder, most of the work, in bfloat16 with float32 sums, and its
        features are bfloat16; attention and LSTMs keep float32 states.
    """

    def __init__(self, module: CinacModule, *, device: str | None = None, precision: str = "float32") -> None:
        if precision not in PRECISIONS:
            raise ParameterError(f"precision={precision!r}: it is one of {', '.join(PRECISIONS)}")
        self.precision = precision
        self.device = torch_device(device)
        self.torch_module = module.to(self.device).eval()
        # without tensor cores cuDNN has its best convolutions, Winograd's, for channels first
        self.torch_module.lay_channels(last=self.device.type == "cpu" or precision != "float32")

    def __repr__(self) -> str:
        return (
            f"<Network: {self.kind}, K={self.n_classes}, L={self.window_len}, P={self.patch_size}, "
            f"{self.n_parameters:,} parameters, {self.precision} on {self.device}>"
        )

    @property
    def plan(self) -> Plan:
        """The layers, their sizes, and how patches are to be masked."""
        return self.torch_module.plan

    @property
    def window_len(self) -> int:
        """Frames in a window, L."""
        return self.plan.window_len

    @property
    def patch_size(self) -> int:
        """Side of a patch, P."""
        return self.plan.patch_size

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in the order of `which_input`."""
        return self.plan.inputs

    @property
    def kind(self) -> str:
        """'activity' or 'cell_type'."""
        return self.plan.kind

    @property
    def n_classes(self) -> int:
        """Classes K."""
        return self.plan.n_classes

    @property
    def per_frame(self) -> bool:
        """Whether each frame has exclusive classes of its own (softmax per frame)."""
        return self.plan.per_frame

    @property
    def mask_mode(self) -> str:
        """How patches are to be masked: 'legacy' or 'corrected'."""
        return self.plan.mask_mode

    @property
    def buffer(self) -> float | None:
        """Pixels by which masks are to be grown, or None."""
        return self.plan.buffer

    @property
    def encoders_tied(self) -> bool:
        """Whether equal patches of different inputs have equal features."""
        return self.plan.encoders_tied

    @property
    def n_features(self) -> int:
        """Features of a frame, D (of the first input)."""
        return self.plan.trunk_shapes[self.inputs[0]][-1]

    @property
    def feature_dtype(self) -> torch.dtype:
        """What `encode` gives: bfloat16 if the precision is bf16, else float32."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def n_parameters(self) -> int:
        """Weights that training changes."""
        return sum(p.numel() for p in self.torch_module.parameters() if p.requires_grad)

    def encode(self, frames: Tensor, which_input: int = 0) -> Tensor:
        """Features of single frames.

        Parameters
        ----------
        frames : (n, P, P) float32 tensor
            Masked, z-scored patches of one input. Any n; worked on in batches.
        which_input : int
            Index into `inputs`; of no account if the encoders are tied.

        Returns
        -------
        features : (n, D) tensor of `feature_dtype`, on the network's device
        """
        side = self.patch_size
        if frames.ndim != 3 or frames.shape[1:] != (side, side):
            raise ArrayShapeError(f"frames are {tuple(frames.shape)}, expected (n, {side}, {side})")
        size = self.plan.encoder_shapes(self.plan.encoder_of(which_input))[-1][0]
        out = torch.empty((len(frames), size), dtype=self.feature_dtype, device=self.device)
        with self._running():
            for part in _parts(len(frames), FRAMES_AT_ONCE[self.device.type]):
                batch = frames[part].to(self.device, torch.float32)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    out[part] = self.torch_module.encode(batch, which_input)
        return out

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Output for windows of features.

        Parameters
        ----------
        features : sequence of (n, L, D) tensors, one for each input
            What `encode` gave for the frames of each window.

        Returns
        -------
        out : float32 tensor, on the network's device
            Activity: (n, L, K), the probability of each class per frame. Cell type: (n, K).
        """
        if len(features) != len(self.inputs):
            raise ArrayShapeError(f"features of {len(features)} inputs, expected those of {self.inputs}")
        for name, given in zip(self.inputs, features, strict=True):
            if given.ndim != 3 or tuple(given.shape[1:]) != self.plan.trunk_shapes[name]:
                wanted = ", ".join(map(str, self.plan.trunk_shapes[name]))
                raise ArrayShapeError(f"features of {name} are {tuple(given.shape)}, expected (n, {wanted})")
        count = len(features[0])
        shape = (self.window_len, self.n_classes) if self.kind == "activity" else (self.n_classes,)
        out = torch.empty((count, *shape), dtype=torch.float32, device=self.device)
        with self._running():
            for part in _parts(count, WINDOWS_AT_ONCE[self.device.type]):
                batch = [given[part].to(self.device, torch.float32) for given in features]
                out[part] = self.torch_module.decode(batch).reshape(-1, *shape)
        return out

    def predict(self, windows: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
        """Output for windows of patches, each frame encoded anew.

        Parameters
        ----------
        windows : mapping of input name to (n, L, P, P) or (n, L, P, P, 1) array
            All the inputs of `inputs`, and no others. A NaN makes its window's output NaN.

        Returns
        -------
        out : (n, L), (n, L, K) or (n, K) float32
            As Keras gives it.

        Raises
        ------
        ArrayShapeError
            An input is missing, unknown or of the wrong shape; the message says what the network wants.
        """
        given = self._checked(windows)
        count, side = len(given[0]), self.patch_size
        out = np.empty((count, *self.plan.output_shape), np.float32)
        with self._running():
            for part in _parts(count, WINDOWS_AT_ONCE[self.device.type]):
                features = []
                for which, array in enumerate(given):
                    frames = torch.as_tensor(np.ascontiguousarray(array[part], np.float32))
                    encoded = self.encode(frames.reshape(-1, side, side), which)
                    features.append(encoded.unflatten(0, (-1, self.window_len)))
                out[part] = self.decode(features).cpu().numpy().reshape(-1, *self.plan.output_shape)
        return out

    def _checked(self, windows: Mapping[str, ArrayLike]) -> list[NDArray[Any]]:
        wants = f"{self.window_len} frames of {self.patch_size} x {self.patch_size} px"
        if set(windows) != set(self.inputs):
            raise ArrayShapeError(
                f"inputs {sorted(windows)} were given; the network wants {', '.join(self.inputs)}, each {wants}"
            )
        given = [np.asarray(windows[name]) for name in self.inputs]
        shape = (self.window_len, self.patch_size, self.patch_size)
        for name, array in zip(self.inputs, given, strict=True):
            if array.shape[1:] not in (shape, (*shape, 1)) or len(array) != len(given[0]):
                raise ArrayShapeError(
                    f"{name} has shape {array.shape}; the network wants (n, {', '.join(map(str, shape))}), {wants}, "
                    "the same n for all inputs"
                )
        return given

    @contextmanager
    def _running(self) -> Iterator[None]:
        training = self.torch_module.training
        if training:
            self.torch_module.eval()
        try:
            with inference(self.device, tf32=self.precision != "float32"):
                yield
        finally:
            if training:
                self.torch_module.train()


def build_network(
    spec: NetworkSpec, *, seed: int | None = 0, device: str | None = None, precision: str = "float32"
) -> Network:
    """A new network, its weights drawn at random: Glorot uniform, orthogonal recurrent ones, forget bias 1.

    Parameters
    ----------
    spec : NetworkSpec
    seed : int, optional
        Of the weights; None draws a new one. The global random state is not touched.
    device, precision
        As in `Network`.
    """
    module = _unfilled(spec.plan()).to_empty(device="cpu")
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            _initialise(part, generator)
    return Network(module, device=device, precision=precision)


def network_from(
    plan: Plan, tensors: Mapping[str, NDArray[Any]], *, device: str | None, precision: str
) -> Network:
    """Network of a plan and its weights, named as in PyTorch's state.

    Raises
    ------
    NetworkFileError
        A weight is missing, unknown or of the wrong shape.
    """
    module = _unfilled(plan)
    wanted = module.state_dict()
    for name, value in wanted.items():
        if name not in tensors:
            raise NetworkFileError(f"there is no weight {name} {tuple(value.shape)}")
        if tensors[name].shape != tuple(value.shape):
            raise NetworkFileError(
                f"weight {name} has shape {tensors[name].shape}, expected {tuple(value.shape)}"
            )
    unknown = sorted(set(tensors) - set(wanted))
    if unknown:
        raise NetworkFileError(f"weights that no layer has: {', '.join(unknown)}")
    module.to_empty(device="cpu")
    module.load_state_dict({name: torch.from_numpy(np.array(tensors[name])) for name in wanted})
    return Network(module, device=device, precision=precision)


def _unfilled(plan: Plan) -> CinacModule:
    """The modules of a plan without memory for their weights: PyTorch would draw them from the global state."""
    with torch.device("meta"):
        return CinacModule(plan)


def _initialise(part: nn.Module, generator: torch.Generator) -> None:
    """Weights of a module itself, not of those in it, as Keras draws them."""
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        part.reset_parameters()  # ones and zeros
    elif isinstance(part, Lstm):
        for name, parameter in part.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter, generator=generator)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)
                if name.startswith("bias_ih"):
                    parameter[part.hidden_size : 2 * part.hidden_size] = 1
    elif isinstance(part, (nn.Conv2d, nn.Linear, Attention)):
        nn.init.xavier_uniform_(part.weight, generator=generator)
        nn.init.zeros_(cast(Tensor, part.bias))


def torch_device(device: str | None) -> torch.device:
    """PyTorch's device for "cpu", "cuda", "cuda:1", or for the active one of the library.

    Raises
    ------
    GpuUnavailable
        A GPU is asked for by name and PyTorch cannot use one.
    """
    if device is not None and device != "cpu" and not torch.cuda.is_available():
        raise GpuUnavailable(
            f"device={device!r} was asked for, and PyTorch {torch.__version__} sees no GPU: install PyTorch for the "
            "CUDA version of the driver (pytorch.org/get-started), or use device='cpu'"
        )
    if device is not None:
        return torch.device(device)
    active = backend.active()
    if active.kind == "cuda" and torch.cuda.is_available():
        return torch.device("cuda", active.index)
    if active.kind == "cuda":
        log.warning("networks run on the CPU: PyTorch %s sees no GPU", torch.__version__)
    return torch.device("cpu")


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, count, size))
