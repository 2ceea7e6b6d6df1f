"""NVRTC without a card: compiles the kernels to machine code and reads what they need.

``python -m tests.helpers.nvrtc scan.cu sm_90`` prints the registers and spills of its kernels.
"""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from umx_np.cuda import compiling
from umx_np.cuda.compiling import options, read_source

# What CuPy adds to the options of the package.
_OF_CUPY = ("-ftz=true", "--device-as-default-execution-space")


class CompileError(Exception):
    """The compiler's messages."""


@dataclass(frozen=True)
class Usage:
    """What a thread of a compiled kernel needs."""

    registers: int
    spilled_bytes: int
    stack_bytes: int


@dataclass(frozen=True)
class Header:
    """What the comments at the top of a source say, see README.md beside the sources."""

    variants: tuple[dict[str, str], ...]
    first_architecture: int
    spills: tuple[str, ...]


def libraries() -> list[Path]:
    """NVRTC libraries of installed packages, one for each major version of CUDA."""
    spec = find_spec("nvidia")
    folders = spec.submodule_search_locations or [] if spec else []
    found = [file for folder in folders for file in Path(folder).rglob("*nvrtc*.so.*")]
    return sorted(file for file in found if re.fullmatch(r"libnvrtc\.so\.\d+", file.name))


def read_header(name: str) -> Header:
    """Read the instructions of a source."""
    text = (compiling.SOURCES / name).read_text(encoding="utf-8")
    variants: list[dict[str, str]] = []
    for line in re.findall(r"^// variants:(.*)$", text, re.MULTILINE):
        for variant in filter(None, map(str.strip, line.split(";"))):
            variants.append(dict(part.strip().split("=", 1) for part in variant.split(",")))
    first = re.search(r"^// from: sm_(\d+)\s*$", text, re.MULTILINE)
    spills = re.findall(r"^// spills:(.*)$", text, re.MULTILINE)
    return Header(
        variants=tuple(variants) or ({},),
        first_architecture=int(first[1]) if first else 0,
        spills=tuple(" ".join(spills).replace(",", " ").split()),
    )


class Nvrtc:
    """One NVRTC library."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def _call(self, function: str, *arguments: object) -> None:
        status = self._library[function](*arguments)
        if status:
            text = self._library.nvrtcGetErrorString(status).decode()
            raise CompileError(f"{function}: {text}")

    def version(self) -> tuple[int, int]:
        """Version of CUDA."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def architectures(self) -> list[int]:
        """Architectures it compiles for, such as 90."""
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        found = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", found)
        return list(found)

    def compile(self, source: str, architecture: int, extra: tuple[str, ...]) -> dict[str, Usage]:
        """Compile to machine code.

        Parameters
        ----------
        source : str
        architecture : int
            For example 90.
        extra : tuple of str
            Options.

        Returns
        -------
        dict
            What each kernel needs.

        Raises
        ------
        CompileError
            With the compiler's messages.
        """
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            source.encode(),
            b"kernels.cu",
            0,
            None,
            None,
        )
        try:
            flags = (*extra, *_OF_CUPY, f"-arch=sm_{architecture}", "--ptxas-options=-v")
            array = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
            status = self._library.nvrtcCompileProgram(program, len(flags), array)
            size = ctypes.c_size_t()
            self._call("nvrtcGetProgramLogSize", program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            self._call("nvrtcGetProgramLog", program, log)
            text = log.value.decode(errors="replace")
            if status:
                raise CompileError(text)
            self._call("nvrtcGetCUBINSize", program, ctypes.byref(size))
            if not size.value:
                raise CompileError("no machine code was made")
            return _usage(text)
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))


def _usage(log: str) -> dict[str, Usage]:
    found = {}
    for part in log.split("Compiling entry function")[1:]:
        name = re.search(r"'(\w+)'", part)
        frame = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
        )
        registers = re.search(r"Used (\d+) registers", part)
        if not (name and frame and registers):
            raise CompileError(f"the compiler's report cannot be read:\n{log}")
        stack, stores, loads = map(int, frame.groups())
        found[name[1]] = Usage(int(registers[1]), max(stores, loads), stack)
    return found


@cache
def nvrtc(path: Path) -> Nvrtc:
    """Load a library once."""
    return Nvrtc(path)


def main() -> None:
    """Print what the kernels of a source need."""
    name, architecture = sys.argv[1], int(sys.argv[2].removeprefix("sm_"))
    extra = dict(argument.split("=", 1) for argument in sys.argv[3:])
    compiler = nvrtc(libraries()[-1])
    for variant in read_header(name).variants:
        defines = {**variant, **extra}
        print(defines)
        for kernel, usage in compiler.compile(
            read_source(name), architecture, options(defines)
        ).items():
            print(f"  {kernel}: {usage}")


if __name__ == "__main__":
    main()
