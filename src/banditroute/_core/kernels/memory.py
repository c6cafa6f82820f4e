"""How kernels read a buffer: views and whole numbers as two instructions each, where numba's own take a page of code.

A slice of numba counts references, clamps its ends and handles negative steps; typing, compiling and optimising that
some two hundred times was half of a cold start. These trust the caller: a view must lie within its array.
"""

from importlib import import_module
from typing import Any

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


def _arrays() -> Any:
    """Return what numba knows of arrays: loaded with the first kernel; at the top it would slow our own import."""
    return import_module("numba.np.arrayobj")


def _view_type(context: Any) -> Any:
    def typer(array: Any, start: Any, size: Any) -> Any:
        if isinstance(array, _types.Array) and array.ndim == 1 and array.layout == "C":
            return array
        return None

    return typer


def _build_view(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    array, *numbers = signature.args
    start, size = (
        context.cast(builder, value, kind, _types.intp)
        for value, kind in zip(values[1:], numbers, strict=True)
    )
    given = _arrays().make_array(array)(context, builder, values[0])
    part = _arrays().make_array(array)(context, builder)
    _arrays().populate_array(
        part,
        data=builder.gep(given.data, [start]),
        shape=[size],
        strides=[given.itemsize],
        itemsize=given.itemsize,
        meminfo=None,
    )
    return part._getvalue()


def _whole_type(context: Any) -> Any:
    def typer(array: Any, slot: Any) -> Any:
        if isinstance(array, _types.Array) and array.dtype == _types.float64 and array.layout == "C":
            return _types.int64
        return None

    return typer


def _build_whole(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    slot = context.cast(builder, values[1], signature.args[1], _types.intp)
    array = _arrays().make_array(signature.args[0])(context, builder, values[0])
    return builder.fptosi(builder.load(builder.gep(array.data, [slot])), context.get_value_type(_types.int64))


def _borrowed_type(context: Any) -> Any:
    return lambda array: array if isinstance(array, _types.Array) else None


def _build_borrowed(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    array = _arrays().make_array(signature.return_type)(context, builder, values[0])
    array.meminfo = array.meminfo.type(None)
    return array._getvalue()


_typed(view)(_view_type)
_lower(view, _types.Array, _types.Integer, _types.Integer)(_build_view)
_typed(whole)(_whole_type)
_lower(whole, _types.Array, _types.Integer)(_build_whole)
_typed(borrowed)(_borrowed_type)
_lower(borrowed, _types.Array)(_build_borrowed)
