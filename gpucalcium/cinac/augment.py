"""Changed copies of windows for training: mirrored, turned, displaced, each drawn for itself, on the device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gpucalcium.cinac._optional import optional

if TYPE_CHECKING:
    import torch

ANGLES = (20, 50, 90, 120, 160, 200, 230, 240, 270, 310)  # degrees
REACH = 2  # px by which copies are displaced along each axis, at most


def draw_affines(
    n: int,
    side: int,
    generator: torch.Generator,
    *,
    flips: bool = True,
    turns: bool = True,
    shifts: bool = True,
) -> torch.Tensor:
    """Maps of squares onto themselves, one for each of n windows.

    Each is drawn for itself: of four mirror images one, of `ANGLES` and no turn one, and a displacement of -2 to 2 px
    along each axis.

    Parameters
    ----------
    n : int
    side : int
        P, px.
    generator : torch.Generator
        On the CPU. The global random state is not touched.
    flips, turns, shifts : bool
        What is done.

    Returns
    -------
    affines : (n, 2, 3) float32 tensor on the CPU
        From output to input coordinates, each from -1 to 1 between the centres of the outer pixels; x first.
    """
    torch = optional("torch", "training", "nets")

    def draw(low: int, high: int, *size: int) -> Any:
        return torch.randint(low, high + 1, size, generator=generator)

    mirror = 1.0 - 2.0 * (draw(0, 1, n, 2) if flips else torch.zeros(n, 2))
    degrees = torch.tensor((0, *ANGLES), dtype=torch.float32)
    turn = degrees[draw(0, len(ANGLES), n)] if turns else torch.zeros(n)
    move = (draw(-REACH, REACH, n, 2) if shifts else torch.zeros(n, 2)) * (2 / max(side - 1, 1))
    cos, sin = torch.cos(turn * (math.pi / 180)), torch.sin(turn * (math.pi / 180))
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)
    return torch.cat([rotation * mirror[:, None, :], move[:, :, None]], dim=2).float()


def transformed(windows: torch.Tensor, affines: torch.Tensor) -> torch.Tensor:
    """Windows (n, C, P, P), all of whose C squares are mapped alike; beyond the border they are reflected.

    Bilinear. Mirror images and displacements are exact to the rounding of float32.
    """
    functional = optional("torch.nn.functional", "training", "nets")
    grid = functional.affine_grid(affines.to(windows.device), list(windows.shape), align_corners=True)
    return functional.grid_sample(windows, grid, "bilinear", "reflection", align_corners=True)
