"""How parts of kernels are compiled: into the kernels that use them, and nowhere else."""

import gc
import sys
from importlib import import_module
from typing import Any

import numba
from numba.core import typed_passes as typed
from numba.core import untyped_passes as untyped
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, Flags
from numba.core.compiler_machinery import PassManager
from numba.core.registry import CPUDispatcher

_Library: Any = JITCodeLibrary  # numba is not typed
_Compiler: Any = Compiler
_Flags: Any = Flags
_Passes: Any = PassManager
_untyped: Any = untyped
_typed: Any = typed
Dispatcher: Any = CPUDispatcher

_STEPS = (
    _untyped.TranslateByteCode,
    _untyped.FixupArgs,
    _untyped.IRProcessing,
    _untyped.GenericRewrites,
    _untyped.ReconstructSSA,
    _typed.NopythonTypeInference,
    _typed.PreLowerStripPhis,
    _typed.NopythonRewrites,
    _typed.IRLegalization,
    _typed.NativeLowering,
    _typed.NoPythonBackend,
)


def load() -> None:
    """Load what numba loads with its first function, less `scipy.linalg`: a third of that time, to see whether it is there.

    It is, for we depend on it. Whoever has numba compile linear algebra loads it then.
    """
    if "numba.np.arraymath" in sys.modules:
        return
    linalg: Any = import_module("numba.np.linalg")
    asked = linalg.ensure_blas
    linalg.ensure_blas = lambda: None
    try:
        import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = asked


class _Options(_Flags):  # type: ignore[misc]
    """Options of a compilation that are compared by what was set; numba looks up all forty, at every look into a cache.

    That is some ten thousand times for one kernel: every ``a[i]`` is offered to seven functions for lists and strings.
    """

    __slots__ = ()

    def __hash__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if type(other) is _Options:
            return bool(self._values == other._values)
        return bool(super().__eq__(other))


class _Draft(_Library):  # type: ignore[misc]
    """The code of a part: linked into the kernels that use it, and optimised and made machine code there alone.

    numba would do both at every level of calls: `dot` a dozen times over.
    """

    apart = False  # called, never copied into its callers

    def finalize(self) -> None:
        """Link what the part calls, and leave it at that."""
        self._raise_if_finalized()
        if self.apart:
            for function in self._final_module.functions:
                if not function.is_declaration:
                    function.add_function_attribute("noinline")
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0: there is no machine code."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        """What `set_env` is called of."""
        return self

    def set_env(self, name: str, env: Any) -> None:
        """Do nothing: the environment is for errors and objects of Python, which parts have not."""


class Whole(_Compiler):  # type: ignore[misc]
    """The compiler of kernels."""

    def __init__(
        self, typing: Any, target: Any, library: Any, args: Any, result: Any, flags: Any, names: Any
    ) -> None:
        super().__init__(typing, target, library, args, result, _Options(flags), names)

    def define_pipelines(self) -> Any:
        """Return the passes that kernels need: they have no closures, no contexts, no branches on types."""
        passes = _Passes("kernels")
        for step in _STEPS:
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]

    def compile_extra(self, function: Any) -> Any:
        """Compile without collecting garbage in between: hardly any is, and to look for it took a fifth of the time."""
        collects = gc.isenabled()
        gc.disable()
        try:
            return super().compile_extra(function)
        finally:
            if collects:
                gc.enable()


class Drafting(Whole):
    """The compiler of parts."""

    apart = False

    def __init__(self, typing: Any, target: Any, library: Any, *given: Any) -> None:
        draft: Any = _Draft(target.codegen(), "part")
        draft.enable_object_caching()
        draft.apart = self.apart
        super().__init__(typing, target, draft, *given)


class Apart(Drafting):
    """The compiler of parts that are called, never copied into their callers."""

    apart = True


class Part(Dispatcher):  # type: ignore[misc]
    """A part: other kernels compile it into themselves. For a call from Python, as tests do, it is compiled alone."""

    def __call__(self, *given: Any) -> Any:
        """Compile it as a kernel, once, and call that."""
        if "alone" not in vars(self):
            jit: Any = numba.njit
            options = {name: self.targetoptions[name] for name in ("fastmath", "error_model")}
            self.alone = jit(pipeline_class=Whole, **options)(self.py_func)
        return self.alone(*given)
