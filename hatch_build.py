"""Compiles the native kernel while the package is built. Without a C++ compiler the package is
built all the same, and searches with torch.

python hatch_build.py    compile into the source tree
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    BuildHookInterface = object

SOURCES = Path("src/metaembed/kernels/native")
LIBRARY = Path("src/metaembed/kernels/_native.so")

FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast"]
AVX512 = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c"
X86 = {
    "avx512_bf16": f"{AVX512} -mavx512vnni -mavx512bf16",
    "avx512_vnni": f"{AVX512} -mavx512vnni",
    "avx512_float": AVX512,
    "avx2": "-mavx2 -mfma -mf16c",
}
"""Each instruction set is compiled on its own, and chosen when the program runs."""


def compilation_units(machine: str) -> dict[str, str]:
    """The sources for a kind of processor, and their flags."""
    sets = X86 if machine.lower() in ("x86_64", "amd64") else {}
    return {**sets, "portable": "", "search": "-pthread"}


def compile_library(root: Path, *, compiler: list[str], machine: str) -> Path:
    """Compile the native kernel in place. Raises `CalledProcessError` or `OSError`."""
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for name, flags in compilation_units(machine).items():
            objects.append(f"{folder}/{name}.o")
            source = root / SOURCES / f"{name}.cpp"
            command = [*compiler, *FLAGS, *flags.split(), "-c", str(source), "-o", objects[-1]]
            subprocess.run(command, check=True, capture_output=True, text=True)
        # Beside the old one first: a running program may have that mapped.
        fresh = root / LIBRARY.with_suffix(".fresh")
        command = [*compiler, "-shared", "-pthread", "-o", str(fresh), *objects]
        subprocess.run(command, check=True, capture_output=True, text=True)
        fresh.replace(root / LIBRARY)
    return root / LIBRARY


def find_compiler() -> list[str] | None:
    """What CXX says, or the first that is installed."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    found = next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    return [found] if found else None


def try_to_compile(root: Path) -> str:
    """Compile, or say in a line why not."""
    compiler = find_compiler()
    if compiler is None or sys.platform == "win32":
        return "no C++ compiler was found"
    try:
        compile_library(root, compiler=compiler, machine=platform.machine())
    except subprocess.CalledProcessError as error:
        return f"{compiler[0]} failed: {' '.join(str(error.stderr).split())[:500]}"
    except OSError as error:
        return f"{compiler[0]} failed: {error}"
    return ""


class NativeKernel(BuildHookInterface):  # type: ignore[misc, valid-type]
    """Puts the compiled library into the wheel, which is then for one platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        problem = try_to_compile(root)
        if problem:
            self.app.display_warning(
                f"The native kernel is not built ({problem}). Searching will use torch."
            )
            (root / LIBRARY).unlink(missing_ok=True)
            return
        if version != "editable":
            build_data["artifacts"].append(str(LIBRARY))
        tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"
        build_data["pure_python"] = False


if __name__ == "__main__":
    if trouble := try_to_compile(Path(__file__).parent):
        sys.exit(f"The native kernel is not built: {trouble}")
