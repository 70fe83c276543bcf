"""Networks of activity whose last layer is the same for all frames: fewer weights, which fewer examples teach."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpucalcium.errors import ParameterError
from gpucalcium.nets.plan import Layer, Plan
from gpucalcium.nets.spec import NetworkSpec


@dataclass(frozen=True, kw_only=True)
class PerFrameSpec(NetworkSpec):
    """`NetworkSpec` of activity, with one dense layer for every frame in place of one for the whole window.

    The original's last layer reads all frames of a window at once, L * units values into L: it must learn for each
    frame anew what activity is. This one learns it once.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "activity":
            raise ParameterError("per_frame_head: networks of cell types say one thing of a window")

    def plan(self) -> Plan:
        """The layers, in order."""
        plan = super().plan()
        trunk: list[Layer] = []
        for layer in plan.trunk:
            inputs = tuple("bin" if name == "flatten" else name for name in layer.inputs)
            if layer is plan.trunk[-1]:
                layer = replace(layer, options={**layer.options, "units": self.n_classes})
            if layer.kind != "flatten":
                trunk.append(replace(layer, inputs=inputs))
        return replace(plan, trunk=tuple(trunk))
