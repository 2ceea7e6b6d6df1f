"""Products of matrices in tiles of sums that stay in registers: intrinsics for the kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types

from .lanes import (
    INT,
    LanesType,
    call,
    constant,
    element,
    is_flat,
    prefetch_line,
    splat,
    vector_intrinsic,
    vector_of,
)


@vector_intrinsic
def tile_product(typingctx, sums, w, x, nb_k, fresh, rows, lanes, of_pairs):
    """Add the product of a panel of weights with a matrix to a tile of sums.

    `sums` is an array with a place and the distance of its rows, `w` and `x` are arrays with a
    place: ``sums[place + r * distance :] += sum over k of w[w_place + k * rows + r] * x[x_place + k
    * lanes :]`` for ``r < rows`` and ``k < nb_k``, `lanes` numbers each. With a `fresh` of 1 it is
    ``=``.

    The tile stays in registers: for each k one vector of x is loaded and multiplied with `rows`
    numbers, which the processor spreads over the lanes as it loads them.

    With an `of_pairs` of 1 each number of `w` and `x` is a pair from `pairs`, and the products of
    both halves are added. The processor must have AVX512-BF16. (It is an argument because Numba
    finds a kernel in its cache only if it refers to intrinsics by global names: it takes one in the
    kernel's closure for a new one in every process.)
    """
    if not all(isinstance(part, types.Tuple) and is_flat(part.types[0]) for part in (sums, w, x)):
        return None
    multiply_add = _add_pairs if of_pairs.literal_value else _multiply_add
    nb_rows, is_fresh = rows.literal_value, bool(fresh.literal_value)
    kind = LanesType(sums.types[0].dtype, lanes.literal_value)
    vector, align = vector_of(kind), kind.dtype.bitwidth // 8

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        (tile, start, step), (weights, w_start), (matrix, x_start) = (
            cgutils.unpack_tuple(builder, part) for part in args[:3]
        )

        def pointer(which: int, array: Any, index: Any) -> Any:
            return element(context, builder, sig.args[which].types[0], array, index)

        addresses = [
            builder.bitcast(
                pointer(0, tile, builder.add(start, builder.mul(step, ir.Constant(INT, r)))),
                vector.as_pointer(),
            )
            for r in range(nb_rows)
        ]
        if not is_fresh:  # added at the end; the product hides the wait for memory
            for address in addresses:
                prefetch_line(builder, address)
        panel, columns = pointer(1, weights, w_start), pointer(2, matrix, x_start)
        operands = _Operands(panel, columns, vector, align)
        results = _sums_over_k(builder, operands, args[3], nb_rows, multiply_add)
        for address, result in zip(addresses, results, strict=True):
            if not is_fresh:
                result = builder.fadd(builder.load(address, align=align), result)
            builder.store(result, address, align=align)
        return context.get_dummy_value()

    return types.void(sums, w, x, types.int64, fresh, rows, lanes, of_pairs), emit


class _Operands(NamedTuple):
    """Pointers to the first numbers of a panel of weights and of a matrix, and their vectors."""

    panel: Any
    matrix: Any
    vector: ir.VectorType
    align: int


def _sums_over_k(
    builder: Any, operands: _Operands, length: Any, nb_rows: int, multiply_add: Any
) -> list:
    """Emit the loop over k and return the sums of all rows behind it."""
    panel, matrix, vector, align = operands
    zero, one = ir.Constant(INT, 0), ir.Constant(INT, 1)
    initial = [constant(vector, 0.0)] * nb_rows
    before = builder.block
    loop = builder.append_basic_block("tile_product")
    after = builder.append_basic_block("tile_product_end")
    builder.cbranch(builder.icmp_signed(">", length, zero), loop, after)

    builder.position_at_end(loop)
    k = builder.phi(INT)
    k.add_incoming(zero, before)
    running = [builder.phi(vector) for _ in range(nb_rows)]
    column = builder.gep(matrix, [builder.mul(k, ir.Constant(INT, vector.count))])
    values = builder.load(builder.bitcast(column, vector.as_pointer()), align=align)
    row = builder.gep(panel, [builder.mul(k, ir.Constant(INT, nb_rows))])
    updated = []
    for r, total in enumerate(running):
        weight = builder.load(builder.gep(row, [ir.Constant(INT, r)]), align=align)
        spread = splat(builder, weight, vector.count)
        updated.append(multiply_add(builder, spread, values, total))
    following = builder.add(k, one)
    k.add_incoming(following, loop)
    for phi, start, total in zip(running, initial, updated, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(total, loop)
    builder.cbranch(builder.icmp_signed("<", following, length), loop, after)

    builder.position_at_end(after)
    results = [builder.phi(vector) for _ in range(nb_rows)]
    for phi, start, total in zip(results, initial, updated, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(total, loop)
    return results


def _multiply_add(builder: Any, spread: Any, values: Any, sums: Any) -> Any:
    return call(builder, "fmuladd", spread, values, sums)


# -- bfloat16: two in the place of one float32 -----------------------------------------------------


class _BFloatType(ir.Type):
    """LLVM's type, which llvmlite does not have."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloatType)

    def __hash__(self) -> int:
        return hash(_BFloatType)


def _add_pairs(builder: Any, spread: Any, values: Any, sums: Any) -> Any:
    kind = ir.VectorType(_BFloatType(), 2 * sums.type.count)
    name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * sums.type.count}"
    function = ir.FunctionType(sums.type, [sums.type, kind, kind])
    declared = builder.module.globals.get(name) or ir.Function(builder.module, function, name)
    pairs = (builder.bitcast(value, kind) for value in (spread, values))
    return builder.call(declared, [sums, *pairs])


@vector_intrinsic
def pairs(typingctx, low, high):
    """Lanes of two vectors, rounded to bfloat16 and put side by side in lanes of 32 bits."""
    if not isinstance(low, LanesType) or high != low or low.dtype is not types.float32:
        return None
    count = low.count

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        halves = [builder.fptrunc(arg, ir.VectorType(_BFloatType(), count)) for arg in args]
        order = [k for lane in range(count) for k in (lane, count + lane)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * count), order)
        return builder.bitcast(builder.shuffle_vector(*halves, mask), vector_of(low))

    return low(low, high), emit
