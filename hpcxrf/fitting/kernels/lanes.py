"""A vector of numbers as a type of numba's: pixels side by side, one in each lane, in registers.

A loop over pixels that is left to the compiler goes to memory between any two statements, and each of them tests which
arrays overlap. With a type, a kernel says what stays in registers, and multiplies as fast as a core can. Every lane has
the same operations in the same order, so that a pixel's numbers do not hang on its lane or its companions.

Rows of lanes lie one after the other in arrays of float32 or float64. These functions exist in compiled code only.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES: Final = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8
"""Pixels side by side: a vector of the widest processors, else one of AVX2 or two of others."""
WORD_BYTES: Final = 64
"""Bytes that are looked at together."""
Lanes = Any
"""A number of each pixel, float32 or float64."""
Mask = Any
"""A yes or no of each pixel."""

_BIT: Final = ir.IntType(1)
_WORD: Final = ir.IntType(32)
_WORDS: Final = ir.VectorType(_WORD, LANES)
_SINGLES: Final = ir.VectorType(ir.FloatType(), LANES)
_DOUBLES: Final = ir.VectorType(ir.DoubleType(), LANES)
_BITS: Final = ir.VectorType(_BIT, LANES)
# A multiplication and an addition may become one operation; nothing else is reordered.
_FLAGS: Final = ("contract", "nsz")
# 2/3 in bits: mantissas are taken between it and 4/3. And what is left of a word without its mantissa.
_TWO_THIRDS: Final = 0x3F2AAAAB
_EXPONENT: Final = -8388608
_FLOAT_BYTES: Final = 4

Builder = Any
"""Of llvmlite, as what follows: instructions are appended to a function."""
Value = Any
Kind = Any
"""Type of numba's."""
Lowering = tuple[Kind, Callable[[Any, Builder, Any, Sequence[Value]], Value]]
"""What a function is of, in types, and what it writes."""

_type: Final = cast(Callable[[type], Callable[[type], type]], register_model)
_meaning: Final = cast(Callable[[object], Callable[[type], type]], infer_global)
_instruction: Final = cast(Callable[[Callable[..., Lowering]], Callable[..., Any]], intrinsic)


class LanesType(types.Type):
    """Type of a number of each pixel."""

    def __init__(self, dtype: Kind) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


class MaskType(types.Type):
    """Type of a yes or no of each pixel."""

    def __init__(self) -> None:
        super().__init__(name="Mask")


def _vector(kind: Kind) -> Value:
    return _SINGLES if kind.dtype == types.float32 else _DOUBLES


def _of(dtype: Kind) -> Kind:
    return _SINGLE if dtype == types.float32 else _DOUBLE


@_type(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Kind, kind: Kind) -> None:
        super().__init__(manager, kind, _vector(kind))


@_type(MaskType)
class _MaskModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Kind, kind: Kind) -> None:
        super().__init__(manager, kind, _BITS)


_SINGLE: Final = LanesType(types.float32)
_DOUBLE: Final = LanesType(types.float64)
_MASK: Final = MaskType()
# A number that all pixels share may stand on one side.
_OPERANDS: Final = ((LanesType, LanesType), (LanesType, types.Float), (types.Float, LanesType))


def _define(
    function: Callable[..., object], result: Kind | None, build: Callable[[Builder, Value, Value], Value]
) -> None:
    """Give an operator of Python a meaning for lanes; without a result's type, it is that of the operands."""

    @_meaning(function)
    class _Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Sequence[Kind], kws: object) -> Kind | None:
            del kws
            vectors = [one for one in args if isinstance(one, LanesType)]
            if len(args) != 2 or not vectors:
                return None
            fitting = all(one in (vectors[0], vectors[0].dtype) for one in args)
            return signature(result or vectors[0], *args) if fitting else None

    def lower(context: object, builder: Builder, sig: Kind, args: Sequence[Value]) -> Value:
        del context
        both = zip(args, sig.args, strict=True)
        return build(builder, *(x if isinstance(kind, LanesType) else _spread(builder, x) for x, kind in both))

    for kinds in _OPERANDS:
        lower_builtin(function, *kinds)(lower)


def _calculate(method: str) -> Callable[[Builder, Value, Value], Value]:
    return lambda builder, a, b: getattr(builder, method)(a, b, flags=_FLAGS)


def _order(sign: str) -> Callable[[Builder, Value, Value], Value]:
    return lambda builder, a, b: builder.fcmp_ordered(sign, a, b)


for _operator, _in_place, _method in (
    (operator.add, operator.iadd, "fadd"),
    (operator.sub, operator.isub, "fsub"),
    (operator.mul, operator.imul, "fmul"),
    (operator.truediv, operator.itruediv, "fdiv"),
):
    _define(_operator, None, _calculate(_method))
    _define(_in_place, None, _calculate(_method))
for _operator, _sign in (
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.eq, "=="),
):
    _define(_operator, _MASK, _order(_sign))


def _built(result: Kind, build: Callable[..., Value], *kinds: Kind) -> Lowering:
    """A function of these types that is `build(builder, *values)`."""
    return result(*kinds), lambda context, builder, sig, args: build(builder, *args)


def _spread(builder: Builder, x: Value) -> Value:
    nothing = ir.Constant(ir.VectorType(x.type, LANES), ir.Undefined)
    first = builder.insert_element(nothing, x, _WORD(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_WORDS, [0] * LANES))


def _call(name: str, result: Value | None = None) -> Callable[..., Value]:
    """A function of LLVM's own; of a number of each pixel where the result has no other type."""

    def build(builder: Builder, x: Value) -> Value:
        kind = ir.FunctionType(result or x.type, [x.type])
        suffix = "i1" if result else "f32" if x.type == _SINGLES else "f64"
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}{suffix}")
        return builder.call(function, [x])

    return build


def _row(context: Any, builder: Builder, kind: Kind, array: Value, row: Value) -> Value:  # noqa: ANN401
    """Pointer to a row of lanes."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [builder.mul(row, row.type(LANES))]), _vector(kind).as_pointer())


@_instruction
def spread(typing: object, x: Kind) -> Lowering:
    """The same number in all lanes."""
    del typing
    return _built(_of(x), _spread, x)


@_instruction
def larger(typing: object, a: Kind, b: Kind) -> Lowering:
    """The larger of two numbers, b where a is none."""
    del typing
    return _built(a, lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b), a, b)


@_instruction
def smaller(typing: object, a: Kind, b: Kind) -> Lowering:
    """The smaller of two numbers, b where a is none."""
    del typing
    return _built(a, lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b), a, b)


@_instruction
def where(typing: object, mask: Kind, a: Kind, b: Kind) -> Lowering:
    """A number where the mask holds, else another."""
    del typing
    return _built(a, lambda builder, mask, a, b: builder.select(mask, a, b), mask, a, b)


@_instruction
def both(typing: object, a: Kind, b: Kind) -> Lowering:
    """Where two masks hold."""
    del typing
    return _built(_MASK, lambda builder, a, b: builder.and_(a, b), a, b)


@_instruction
def either(typing: object, a: Kind, b: Kind) -> Lowering:
    """Where one of two masks holds."""
    del typing
    return _built(_MASK, lambda builder, a, b: builder.or_(a, b), a, b)


@_instruction
def inverse(typing: object, mask: Kind) -> Lowering:
    """Where a mask does not hold."""
    del typing
    return _built(_MASK, lambda builder, mask: builder.not_(mask), mask)


@_instruction
def holds(typing: object, mask: Kind) -> Lowering:
    """Whether the mask holds in any lane."""
    del typing
    return _built(types.boolean, _call("vector.reduce.or", _BIT), mask)


@_instruction
def fails(typing: object, mask: Kind) -> Lowering:
    """Whether the mask does not hold in some lane."""
    del typing
    every = _call("vector.reduce.and", _BIT)
    return _built(types.boolean, lambda builder, mask: builder.not_(every(builder, mask)), mask)


@_instruction
def root(typing: object, x: Kind) -> Lowering:
    """Square root."""
    del typing
    return _built(x, _call("sqrt"), x)


@_instruction
def size(typing: object, x: Kind) -> Lowering:
    """Absolute value."""
    del typing
    return _built(x, _call("fabs"), x)


def _exponent(builder: Builder, bits: Value) -> Value:
    above = builder.sub(bits, ir.Constant(_WORDS, [_TWO_THIRDS] * LANES))
    return builder.and_(above, ir.Constant(_WORDS, [_EXPONENT] * LANES))


@_instruction
def exponent(typing: object, x: Kind) -> Lowering:
    """2^23 e, of a positive number 2^e m in single precision with 2/3 <= m < 4/3."""
    del typing
    return _built(_SINGLE, lambda b, x: b.sitofp(_exponent(b, b.bitcast(x, _WORDS)), _SINGLES), x)


@_instruction
def mantissa(typing: object, x: Kind) -> Lowering:
    """That m."""
    del typing

    def build(builder: Builder, x: Value) -> Value:
        bits = builder.bitcast(x, _WORDS)
        return builder.bitcast(builder.sub(bits, _exponent(builder, bits)), _SINGLES)

    return _built(_SINGLE, build, x)


@_instruction
def load(typing: object, array: Kind, row: Kind) -> Lowering:
    """A row of an array of lanes."""
    del typing

    def generate(context: object, builder: Builder, sig: Kind, args: Sequence[Value]) -> Value:
        found = builder.load(_row(context, builder, sig.args[0], args[0], args[1]))
        found.align = _FLOAT_BYTES
        return found

    return _of(array.dtype)(array, row), generate


@_instruction
def store(typing: object, array: Kind, row: Kind, x: Kind) -> Lowering:
    """Put lanes into a row of an array."""
    del typing

    def generate(context: Any, builder: Builder, sig: Kind, args: Sequence[Value]) -> Value:  # noqa: ANN401
        builder.store(args[2], _row(context, builder, sig.args[0], args[0], args[1])).align = _FLOAT_BYTES
        return context.get_dummy_value()

    return types.void(array, row, x), generate


@_instruction
def turn(typing: object, numbers: Kind, begin: Kind, stride: Kind, rows: Kind, row: Kind) -> Lowering:
    """Put `LANES` neighbouring numbers of each of `LANES` pixels into as many rows of lanes.

    `numbers` is a flat array of unsigned whole numbers, or of float32; the first pixel's begin at `begin`, those of the
    next one `stride` places farther. They go to `rows`, of float32, from `row` on.
    """
    del typing
    whole = numbers.dtype != types.float32

    def generate(context: Any, builder: Builder, sig: Kind, args: Sequence[Value]) -> Value:  # noqa: ANN401
        given, first, step, target, to = args
        data = context.make_array(sig.args[0])(context, builder, given).data
        kind = ir.VectorType(data.type.pointee, LANES).as_pointer()
        vectors = []
        for lane in range(LANES):
            place = builder.add(first, builder.mul(step, step.type(lane)))
            vector = builder.load(builder.bitcast(builder.gep(data, [place]), kind))
            vector.align = 1
            vectors.append(builder.uitofp(vector, _SINGLES) if whole else vector)
        for i, vector in enumerate(_transpose(builder, vectors)):
            place = builder.add(to, to.type(i))
            builder.store(vector, _row(context, builder, sig.args[3], target, place)).align = _FLOAT_BYTES
        return context.get_dummy_value()

    return types.void(numbers, begin, stride, rows, row), generate


@_instruction
def add_lanes(typing: object, x: Kind) -> Lowering:
    """Sum over the lanes, in single precision."""
    del typing

    def build(builder: Builder, x: Value) -> Value:
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _SINGLES])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32")
        # By halves: else one after the other.
        return builder.call(function, [ir.Constant(ir.FloatType(), -0.0), x], fastmath=("reassoc",))

    return _built(types.float32, build, x)


@_instruction
def mark_bytes(typing: object, data: Kind, begin: Kind) -> Lowering:
    """Which of `WORD_BYTES` neighbouring bytes are not 0, as bits, that of the first the lowest."""
    del typing

    def generate(context: Any, builder: Builder, sig: Kind, args: Sequence[Value]) -> Value:  # noqa: ANN401
        place = builder.gep(context.make_array(sig.args[0])(context, builder, args[0]).data, [args[1]])
        kind = ir.VectorType(place.type.pointee, WORD_BYTES)
        found = builder.load(builder.bitcast(place, kind.as_pointer()))
        found.align = 1
        held = builder.icmp_unsigned("!=", found, ir.Constant(kind, [0] * WORD_BYTES))
        return builder.bitcast(held, ir.IntType(WORD_BYTES))

    return types.uint64(data, begin), generate


@_instruction
def fetch_ahead(typing: object, data: Kind, place: Kind) -> Lowering:
    """Have a byte, and its neighbours, brought near; one that is not there is none to bring."""
    del typing

    def generate(context: Any, builder: Builder, sig: Kind, args: Sequence[Value]) -> Value:  # noqa: ANN401
        address = builder.gep(context.make_array(sig.args[0])(context, builder, args[0]).data, [args[1]])
        kind = ir.FunctionType(ir.VoidType(), [address.type, _WORD, _WORD, _WORD])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # To read, into the nearest cache, of data.
        builder.call(function, [address, _WORD(0), _WORD(3), _WORD(1)])
        return context.get_dummy_value()

    return types.void(data, place), generate


@_instruction
def lowest(typing: object, bits: Kind) -> Lowering:
    """Place of the lowest bit of an unsigned number that is not 0."""
    del typing
    return _built(types.uint64, lambda builder, bits: builder.cttz(bits, _BIT(1)), bits)


def _transpose(builder: Builder, vectors: list[Value]) -> list[Value]:
    """Of a square of numbers, by exchanging larger and larger blocks beside the diagonal."""
    found = list(vectors)
    block = 1
    while block < LANES:
        near = [k if not k & block else LANES + k - block for k in range(LANES)]
        far = [k + block if not k & block else LANES + k for k in range(LANES)]
        for i in range(LANES):
            if not i & block:
                a, b = found[i], found[i + block]
                found[i] = builder.shuffle_vector(a, b, ir.Constant(_WORDS, near))
                found[i + block] = builder.shuffle_vector(a, b, ir.Constant(_WORDS, far))
        block *= 2
    return found
