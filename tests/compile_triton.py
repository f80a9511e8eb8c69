"""Compiles Triton's kernels for a GPU that need not be there: `ELEMENT PRECISION CAPABILITY`.

Prints the names of those whose code has instructions of tensor cores.
"""

from __future__ import annotations

import sys
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ecd_deploy.distill.convolution.triton import gradients, mixing, products
from ecd_deploy.training.fused import norms

ENDS = ("", "_gradient")
BLOCKS = ("OUT", "CHANNELS", "PLACES", "SAMPLES", "INNER", "HIDDEN", "KERNELS")
POINTERS = (
    *("features", "kernels", "bias", "output", "gradient", "features_gradient", "weights_gradient"),
    *("student", "connection", "later_student", "later_connection", "later", "received", "second_received"),
    *("second_student", "second_connection", "student_gradient", "second_student_gradient"),
    *("temperature", "pooled", "hidden", "mixing", "parts", "sums", "weight", "weight_gradient"),
    *(f"{layer}_{tensor}{end}" for layer in ("reduce", "expand") for tensor in ("weight", "bias") for end in ENDS),
    *("added", "second", "third", "fourth", "beside", "passed", "behind", "total"),
)
STATISTICS = ("weight", "running_mean", "running_variance", "mean", "inverse_deviation")
SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that a program can have, by compute capability: CUDA's programming guide."""
OPERANDS = {"fp32": tl.float32, "bf16": tl.bfloat16, "fp16": tl.float16}


def compiled(function: Any, element: str, precision: str, capability: int) -> str:
    """The code of a kernel, strided and with everything that can be added to a convolution."""
    blocks = {f"BLOCK_{name}": 64 if name in ("OUT", "CHANNELS", "PLACES", "SAMPLES") else 32 for name in BLOCKS}
    constants: dict[str, Any] = {
        **blocks,
        "BLOCK_PARTS": 8,
        "BLOCK_COLUMNS": 128,
        "KERNEL": (3, 3),
        "STRIDE": (2, 2),
        "PADDING": (1, 1),
        "DILATION": (1, 1),
        "GROUPS": 2,
        "GAIN": 4.0,
        "MOMENTUM": 0.1,
        "EPS": 1e-5,
        "COUNT": 4,
        **dict.fromkeys(("HAS_BIAS", "IS_CONNECTED", "IS_LATER"), True),
        **dict.fromkeys(("IS_ADDED", "RECTIFIES", "IS_BESIDE", "PASSES", "IS_BEHIND", "POOLS", "SUMS"), True),
        "SUM": tl.float32,
        "OPERAND": OPERANDS[element],
        "PRECISION": precision,
    }
    own = {name: value for name, value in constants.items() if name in function.arg_names}
    is_of_norm = function in (norms.normalise, norms.differentiate)
    types = dict.fromkeys(POINTERS, f"*{element if 'OPERAND' in own or is_of_norm else 'fp32'}")
    types |= {"pooled_gradient": "*fp32"}
    if function in (mixing.mix, mixing.differentiate_mixing):
        types |= {"kernels" if function is mixing.mix else "gradient": f"*{element}"}
    if is_of_norm:
        types |= dict.fromkeys((*STATISTICS, "bias", "weight_gradient", "bias_gradient"), "*fp32")
    signature = {name: "constexpr" if name in own else types.get(name, "i32") for name in function.arg_names}
    places = {(function.arg_names.index(name),): value for name, value in own.items()}
    found = triton.compile(ASTSource(function, signature, places), target=GPUTarget("cuda", capability, 32))
    if found.metadata.shared > SHARED[capability]:
        raise MemoryError(f"{function.__name__} needs {found.metadata.shared} bytes of shared memory")
    return str(found.asm["ptx"])


def main() -> None:
    element, precision, capability = sys.argv[1:]
    functions = [products.convolve, gradients.differentiate_features, gradients.differentiate_weights]
    functions += [mixing.mix, mixing.differentiate_mixing, mixing.differentiate_route]
    functions += [norms.normalise, norms.differentiate]
    names = [one.__name__ for one in functions if "mma" in compiled(one, element, precision, int(capability))]
    sys.stdout.write("\n".join(names))


if __name__ == "__main__":
    main()
