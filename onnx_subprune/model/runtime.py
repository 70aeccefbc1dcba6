"""Where and how networks run: one value, in the place of three arguments that always travel together."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnxruntime as ort

from onnx_subprune.model.session import open_session

__all__ = ["Runtime"]


@dataclass(frozen=True)
class Runtime:
    """Where networks run, and with how many samples at once.

    Attributes:
        providers: ONNX Runtime execution providers, the most wanted first; short names allowed.
        threads: intra-op threads; None for the runtime's own choice.
        batch_size: samples per run.

    """

    providers: tuple[str, ...] = ("cpu",)
    threads: int | None = None
    batch_size: int = 32

    def session(self, model: onnx.ModelProto, *, optimise: bool = True) -> ort.InferenceSession:
        """Open a session on these providers.

        Args:
            model: what to run.
            optimise: whether ONNX Runtime may fuse operators.

        Raises:
            OptionError: a provider is unknown or did not load.
            ModelError: ONNX Runtime refuses the model.

        """
        return open_session(model, self.providers, threads=self.threads, optimise=optimise)
