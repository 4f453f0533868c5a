"""What makes the same model faster, with the same results to rounding."""

from .compiling import compile_dense_parts, missing_compiler
from .folding import fold_norms
from .inference import prepare_for_inference
from .memory_format import check_speed_keys, to_channels_last, wants_channels_last
from .sampled_rpn import SampledRPN

__all__ = [
    "SampledRPN",
    "check_speed_keys",
    "compile_dense_parts",
    "fold_norms",
    "missing_compiler",
    "prepare_for_inference",
    "to_channels_last",
    "wants_channels_last",
]
