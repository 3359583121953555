"""Late interaction over stored vectors: the fast ways to compute what `scoring.maxsim` defines."""

from metaembed.kernels.candidates import Candidates, kernel_name
from metaembed.kernels.parts import Best, Part

__all__ = ["Best", "Candidates", "Part", "kernel_name"]
