"""Vectors of numbers as values of Numba: what lets a kernel keep a tile of sums in registers.

Numba leaves it to LLVM to find vectors in scalar loops, and LLVM does not find them where several
arrays might overlap or where sums have to stay in registers over a loop. Here the vectors are
written down instead. A kernel says

    c = f * c + sigmoid(load(gates, index, 16)) * tanh(load(gates, other, 16))

and each value holds 16 numbers. Numbers of lanes and rows must be constants of the kernel (global,
or of its closure). LLVM splits a vector that is wider than the registers of the processor.

The elementary functions are polynomials in float32, because a call of the mathematics library
would take the lanes one by one; in float64 they are these calls. There are no bounds checks.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

INT = ir.IntType(64)
# As a value of any type, because what a kernel calls is not what stands here.
vector_intrinsic: Any = intrinsic(prefer_literal=True)


class LanesType(types.Type):
    """`count` numbers of a floating dtype."""

    def __init__(self, dtype: types.Float, count: int) -> None:
        self.dtype = dtype
        self.count = count
        super().__init__(name=f"Lanes({dtype}, {count})")


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: LanesType) -> None:
        super().__init__(dmm, fe_type, vector_of(fe_type))


def vector_of(lanes: LanesType) -> ir.VectorType:
    """LLVM's type of lanes."""
    return ir.VectorType(_scalar(lanes.dtype), lanes.count)


def _scalar(dtype: types.Float) -> ir.Type:
    return ir.FloatType() if dtype is types.float32 else ir.DoubleType()


# -- arithmetic: lanes with lanes, lanes with numbers ----------------------------------------------


def _operator(function: Callable, emit: str) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args: tuple, kws: dict) -> Any:
            if len(args) != 2 or kws:
                return None
            found = [arg for arg in args if isinstance(arg, LanesType)]
            if not found or any(arg not in (found[0], *types.number_domain) for arg in args):
                return None
            lanes = found[0]
            numbers = (arg if isinstance(arg, LanesType) else lanes.dtype for arg in args)
            return signature(lanes, *numbers)

    def lower(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        values = [
            value if isinstance(kind, LanesType) else splat(builder, value, sig.return_type.count)
            for value, kind in zip(args, sig.args, strict=True)
        ]
        # A product and a sum may become one instruction.
        return getattr(builder, emit)(*values, flags=("contract",))

    for kinds in ((LanesType, LanesType), (LanesType, types.Float), (types.Float, LanesType)):
        lower_builtin(function, *kinds)(lower)


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")


def splat(builder: Any, value: Any, count: int) -> Any:
    """Vector of `count` times the same number."""
    vector = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
    vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(vector, vector, zeros)


def constant(like: Any, value: float) -> Any:
    """Vector of the type `like` that holds a number in all lanes."""
    return ir.Constant(like, [value] * like.count)


def call(builder: Any, name: str, *args: Any) -> Any:
    """Call an intrinsic function of LLVM on vectors of one type."""
    kind = args[0].type
    suffix = f"v{kind.count}f{32 if isinstance(kind.element, ir.FloatType) else 64}"
    function = ir.FunctionType(kind, [kind] * len(args))
    declared = builder.module.globals.get(f"llvm.{name}.{suffix}")
    if declared is None:
        declared = ir.Function(builder.module, function, f"llvm.{name}.{suffix}")
    return builder.call(declared, args)


# -- memory ----------------------------------------------------------------------------------------


def element(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Pointer to an element of a contiguous one-dimensional array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def is_flat(kind: Any) -> bool:
    """Whether a type is that of a contiguous one-dimensional array."""
    return isinstance(kind, types.Array) and kind.ndim == 1 and kind.layout == "C"


@vector_intrinsic
def load(typingctx, array, index, lanes):
    """Lanes from ``array[index : index + lanes]``."""
    if not is_flat(array) or not isinstance(lanes, types.IntegerLiteral):
        return None
    kind = LanesType(array.dtype, lanes.literal_value)

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        pointer = element(context, builder, sig.args[0], args[0], args[1])
        vector = builder.bitcast(pointer, vector_of(kind).as_pointer())
        # Where the array begins is not known: no more than one number's alignment is promised.
        return builder.load(vector, align=array.dtype.bitwidth // 8)

    return kind(array, types.int64, lanes), emit


@vector_intrinsic
def store(typingctx, array, index, value):
    """Put lanes to ``array[index : index + lanes]``."""
    if not is_flat(array) or not isinstance(value, LanesType):
        return None

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        pointer = element(context, builder, sig.args[0], args[0], args[1])
        vector = builder.bitcast(pointer, args[2].type.as_pointer())
        builder.store(args[2], vector, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), emit


@vector_intrinsic
def transpose(typingctx, source, index, stride, target, place, distance, lanes):
    """Copy a square of numbers with rows and columns exchanged.

    ``target[place + k * distance + r] = source[index + r * stride + k]`` for ``r, k < lanes``,
    which must be a power of two.
    """
    if not (is_flat(source) and is_flat(target)) or not isinstance(lanes, types.IntegerLiteral):
        return None
    count = lanes.literal_value
    kind = LanesType(source.dtype, count)

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        vector, align = vector_of(kind).as_pointer(), source.dtype.bitwidth // 8

        def rows(array: int, start: Any, step: Any) -> list:
            pointers = []
            for r in range(count):
                at = builder.add(start, builder.mul(step, ir.Constant(INT, r)))
                pointer = element(context, builder, sig.args[array], args[array], at)
                pointers.append(builder.bitcast(pointer, vector))
            return pointers

        values = [builder.load(p, align=align) for p in rows(0, args[1], args[2])]
        # Exchange blocks on both sides of the diagonal, of half the size, a quarter, ... one.
        half = count // 2
        while half:
            values = _exchange(builder, values, half)
            half //= 2
        for pointer, value in zip(rows(3, args[4], args[5]), values, strict=True):
            builder.store(value, pointer, align=align)
        return context.get_dummy_value()

    size = types.int64
    return types.void(source, size, size, target, size, size, lanes), emit


def _exchange(builder: Any, rows: list, half: int) -> list:
    """Swap the upper right and the lower left `half` x `half` block of each larger block."""
    count = len(rows)
    integers = ir.VectorType(ir.IntType(32), count)
    upper = [k if not k & half else count + k - half for k in range(count)]
    lower = [k + half if not k & half else count + k for k in range(count)]
    result = list(rows)
    for r in range(count):
        if not r & half:
            pair = rows[r], rows[r + half]
            result[r] = builder.shuffle_vector(*pair, ir.Constant(integers, upper))
            result[r + half] = builder.shuffle_vector(*pair, ir.Constant(integers, lower))
    return result


def prefetch_line(builder: Any, pointer: Any) -> None:
    """Ask for the cache line of a pointer, to be written."""
    byte = ir.IntType(8).as_pointer()
    flags = [ir.Constant(ir.IntType(32), flag) for flag in (1, 3, 1)]  # write, near, data
    kind = ir.FunctionType(ir.VoidType(), [byte] + [flag.type for flag in flags])
    name = "llvm.prefetch.p0i8"
    declared = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(declared, [builder.bitcast(pointer, byte), *flags])


@vector_intrinsic
def prefetch(typingctx, array, index):
    """Ask for the cache line of ``array[index]``, which may lie outside of the array."""
    if not is_flat(array):
        return None

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        prefetch_line(builder, element(context, builder, sig.args[0], args[0], args[1]))
        return context.get_dummy_value()

    return types.void(array, types.int64), emit


# -- elementary functions --------------------------------------------------------------------------
# The float32 polynomials are those of S. Moshier, Cephes Mathematical Library, single precision.

_LOG2_E = 1.44269504088896341
# ln 2 in two parts, of which the first has few digits: its products with integers are exact.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_TANH = (
    -5.70498872745e-3,
    2.06390887954e-2,
    -5.37397155531e-2,
    1.33314422036e-1,
    -3.33332819422e-1,
)
# Beyond these exp leaves the range of normal numbers; sigmoid and tanh are 0 or 1 long before.
_EXP_RANGE = (-87.0, 88.0)
# Adding it leaves the nearest integer in the last bits of a float32.
_ROUND = 12582912.0


def _polynomial(builder: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    result = constant(x.type, coefficients[0])
    for coefficient in coefficients[1:]:
        result = call(builder, "fmuladd", result, x, constant(x.type, coefficient))
    return result


def _exp(builder: Any, x: Any) -> Any:
    """e^x; NaN stays NaN."""
    kind = x.type
    if isinstance(kind.element, ir.DoubleType):
        return call(builder, "exp", x)
    for bound, comparison in zip(_EXP_RANGE, ("<", ">"), strict=True):
        limit = constant(kind, bound)
        x = builder.select(builder.fcmp_ordered(comparison, x, limit), limit, x)
    # e^x = 2^n e^r with an integer n and |r| <= ln 2 / 2
    shifted = call(builder, "fmuladd", x, constant(kind, _LOG2_E), constant(kind, _ROUND))
    n = builder.fsub(shifted, constant(kind, _ROUND))
    r = call(builder, "fmuladd", n, constant(kind, -_LN2_HIGH), x)
    r = call(builder, "fmuladd", n, constant(kind, -_LN2_LOW), r)
    p = call(builder, "fmuladd", _polynomial(builder, r, _EXP), builder.fmul(r, r), r)
    p = builder.fadd(p, constant(kind, 1.0))
    # The exponent begins at bit 23.
    integers = ir.VectorType(ir.IntType(32), kind.count)
    exponent = builder.shl(
        builder.bitcast(shifted, integers), ir.Constant(integers, [23] * kind.count)
    )
    return builder.bitcast(builder.add(builder.bitcast(p, integers), exponent), kind)


def _sigmoid(builder: Any, x: Any) -> Any:
    one = constant(x.type, 1.0)
    return builder.fdiv(one, builder.fadd(one, _exp(builder, builder.fneg(x))))


def _tanh(builder: Any, x: Any) -> Any:
    one, two = constant(x.type, 1.0), constant(x.type, 2.0)
    e = _exp(builder, builder.fmul(two, x))
    large = builder.fsub(one, builder.fdiv(two, builder.fadd(e, one)))
    if isinstance(x.type.element, ir.DoubleType):
        return large
    # Near 0 the difference above would cancel.
    square = builder.fmul(x, x)
    p = _polynomial(builder, square, _TANH)
    small = call(builder, "fmuladd", builder.fmul(p, square), x, x)
    is_small = builder.fcmp_ordered("<", square, constant(x.type, 0.625**2))
    return builder.select(is_small, small, large)


def _function(emit_value: Callable[[Any, Any], Any], doc: str) -> Any:
    def typed(typingctx, x):
        if not isinstance(x, LanesType):
            return None

        def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
            return emit_value(builder, args[0])

        return x(x), emit

    typed.__name__ = emit_value.__name__.strip("_")
    typed.__doc__ = doc
    return vector_intrinsic(typed)


sigmoid = _function(_sigmoid, "Logistic function of each lane; error below 2e-7 in float32.")
tanh = _function(_tanh, "Hyperbolic tangent of each lane; error below 2e-7 in float32.")


def _positive(builder: Any, x: Any) -> Any:
    zero = constant(x.type, 0.0)
    return builder.select(builder.fcmp_ordered("<", x, zero), zero, x)


def _sqrt(builder: Any, x: Any) -> Any:
    return call(builder, "sqrt", x)


sqrt = _function(_sqrt, "Square root of each lane.")
positive = _function(_positive, "Positive part of each lane; NaN stays NaN.")


@vector_intrinsic
def where_positive(typingctx, condition, value):
    """Lanes of `value` where `condition` is above 0, and 0 elsewhere."""
    if not isinstance(value, LanesType) or condition != value:
        return None

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        zero = constant(args[0].type, 0.0)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], zero)

    return value(condition, value), emit
