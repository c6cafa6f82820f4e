"""How kernels read a buffer: views and whole numbers as two instructions each, where numba's own take a page of code.

A slice of numba counts references, clamps its ends and handles negative steps; typing, compiling and optimising that
some two hundred times was half of a cold start. These trust the caller: a view must lie within its array.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import lower_builtin, type_callable

_types: Any = types  # numba is not typed
_lower: Any = lower_builtin
_typed: Any = type_callable


def view(array, start, size):
    """array: (n,), contiguous -> ``array[start : start + size]`` without an owner.

    Whoever calls a kernel holds its arguments for the length of the call, so what a kernel reads need not be counted:
    a third of the time of `choose` at (15, 32) was counting.
    """
    return array[start : start + size]


def whole(array, slot):
    """array: (n,) -> ``int(array[slot])`` of a number that is whole."""
    return int(array[slot])


def borrowed(array):
    """array: any shape -> itself without its owner, so that its slices and rows are not counted; see `view`."""
    return array


@_typed(view)
def _view_type(context: Any) -> Any:
    def typer(array: Any, start: Any, size: Any) -> Any:
        if isinstance(array, _types.Array) and array.ndim == 1 and array.layout == "C":
            return array
        return None

    return typer


@_lower(view, _types.Array, _types.Integer, _types.Integer)
def _build_view(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    from numba.np import arrayobj  # loaded by now anyway; at the top it would slow our own import

    array, *numbers = signature.args
    start, size = (
        context.cast(builder, value, given, _types.intp)
        for value, given in zip(values[1:], numbers, strict=True)
    )
    whole = arrayobj.make_array(array)(context, builder, values[0])
    part = arrayobj.make_array(array)(context, builder)
    arrayobj.populate_array(
        part,
        data=builder.gep(whole.data, [start]),
        shape=[size],
        strides=[whole.itemsize],
        itemsize=whole.itemsize,
        meminfo=None,
    )
    return part._getvalue()


@_typed(whole)
def _whole_type(context: Any) -> Any:
    def typer(array: Any, slot: Any) -> Any:
        if isinstance(array, _types.Array) and array.dtype == _types.float64 and array.layout == "C":
            return _types.int64
        return None

    return typer


@_lower(whole, _types.Array, _types.Integer)
def _build_whole(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    from numba.np import arrayobj

    slot = context.cast(builder, values[1], signature.args[1], _types.intp)
    array = arrayobj.make_array(signature.args[0])(context, builder, values[0])
    return builder.fptosi(builder.load(builder.gep(array.data, [slot])), ir.IntType(64))


@_typed(borrowed)
def _borrowed_type(context: Any) -> Any:
    return lambda array: array if isinstance(array, _types.Array) else None


@_lower(borrowed, _types.Array)
def _build_borrowed(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    from numba.np import arrayobj

    array = arrayobj.make_array(signature.return_type)(context, builder, values[0])
    array.meminfo = array.meminfo.type(None)
    return array._getvalue()
