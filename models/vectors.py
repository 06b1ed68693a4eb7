"""What LLVM is told about vectors of float32, where compiled kernels say themselves which to use.

The exponential is taken to the base 2, of numbers that were multiplied by log2 e beforehand: with y = n + r, n whole
and |r| <= 1/2, 2^y = 2^n 2^r, where n goes into the exponent's bits and 2^r - 1 is r times a polynomial.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numpy.polynomial import chebyshev

WIDE = bool(llvm.get_host_cpu_features().get("avx512f", False))
LANES = 16 if WIDE else 8  # numbers of a vector; 8 are two registers where they hold 4
BYTES = 4

SIZE = ir.IntType(64)
_number, _bit, _word = ir.FloatType(), ir.IntType(1), ir.IntType(32)
_vector, _mask, _words = (ir.VectorType(kind, LANES) for kind in (_number, _bit, _word))

ROUNDER = 1.5 * 2.0**23  # added to a float32, it rounds it to a whole number, which then stands in its lowest bits
MANTISSA_BITS = 23


def _series() -> list[float]:
    """Return the coefficients of (2^r - 1) / r for |r| <= 1/2, to 1e-8, the constant one first."""
    fitted = chebyshev.Chebyshev.interpolate(lambda r: np.expm1(r * np.log(2)) / r, 5, domain=[-0.5, 0.5])
    return [float(one) for one in fitted.convert(kind=np.polynomial.Polynomial).coef]


class Vectors:
    """Writes instructions on vectors of `LANES` float32; addresses are 64-bit numbers.

    Args:
        builder: llvmlite's.
    """

    kind = _vector

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def pointer(self, address: Any, numbers: int = 0, kind: Any = _vector) -> Any:
        """Return the address so many float32 further on, as a pointer."""
        return self.builder.inttoptr(self.builder.add(address, SIZE(numbers * BYTES)), kind.as_pointer())

    def after(self, address: Any, numbers: Any) -> Any:
        """Return the address so many float32 further on, a number that is known at run time."""
        return self.builder.add(address, self.builder.mul(numbers, SIZE(BYTES)))

    def load(self, address: Any, numbers: int = 0) -> Any:
        """Load a vector that begins so many numbers after the address."""
        return self.builder.load(self.pointer(address, numbers), align=BYTES)

    def store(self, value: Any, address: Any, numbers: int = 0) -> None:
        """Store a vector so many numbers after the address."""
        self.builder.store(value, self.pointer(address, numbers), align=BYTES)

    def first(self, count: Any) -> Any:
        """Return the mask of the first `count` lanes, of all where it is `LANES` or more."""
        builder = self.builder
        lanes = ir.Constant(_words, list(range(LANES)))
        return builder.icmp_signed("<", lanes, self._spread(builder.trunc(count, _word), _words))

    def whole_or_first(self, count: Any, body: Callable[[Any], None]) -> None:
        """Write `body` for whole vectors (None), and for the mask of the first `count` lanes, where there are fewer."""
        with self.builder.if_else(self.builder.icmp_signed(">=", count, SIZE(LANES))) as (whole, some):
            with whole:
                body(None)
            with some:
                body(self.first(count))

    def loop(self, stop: Any, step: int, values: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """Write a loop over 0, step, ... below `stop`, and return the vectors that come out of it.

        Args:
            stop: A number.
            step: How far the loop goes at a time.
            values: Vectors that go in.
            body: Returns of where the loop is, and of the vectors so far, those that go on.
        """
        builder = self.builder
        before = builder.block
        head, inside, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        at = builder.phi(SIZE)
        at.add_incoming(SIZE(0), before)
        kept = [builder.phi(value.type) for value in values]
        for phi, value in zip(kept, values, strict=True):
            phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", at, stop), inside, done)
        builder.position_at_end(inside)
        new = body(at, kept)
        for phi, value in zip(kept, new, strict=True):
            phi.add_incoming(value, builder.block)
        at.add_incoming(builder.add(at, SIZE(step)), builder.block)
        builder.branch(head)
        builder.position_at_end(done)
        return kept

    def load_some(self, address: Any, mask: Any) -> Any:
        """Load the lanes of a mask, None being all; the others are 0."""
        if mask is None:
            return self.load(address)
        kinds = [self.pointer(address).type, _word, _mask, _vector]
        load = self._function(f"llvm.masked.load.v{LANES}f32.p0", _vector, kinds)
        return self.builder.call(load, [self.pointer(address), _word(BYTES), mask, self.number(0)])

    def store_some(self, value: Any, address: Any, mask: Any) -> None:
        """Store the lanes of a mask, None being all."""
        if mask is None:
            self.store(value, address)
            return
        kinds = [_vector, self.pointer(address).type, _word, _mask]
        store = self._function(f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), kinds)
        self.builder.call(store, [value, self.pointer(address), _word(BYTES), mask])

    def everywhere(self, address: Any) -> Any:
        """Load one number into every lane."""
        return self._spread(self.builder.load(self.pointer(address, kind=_number), align=BYTES), _vector)

    def number(self, value: float) -> Any:
        """Return a constant in every lane."""
        rounded = struct.unpack("f", struct.pack("f", value))[0]
        return ir.Constant(_vector, [ir.Constant(_number, rounded)] * LANES)

    def fma(self, one: Any, other: Any, added: Any) -> Any:
        """Return one * other + added, rounded once."""
        return self.builder.call(self._function(f"llvm.fma.v{LANES}f32", _vector, [_vector] * 3), [one, other, added])

    def add(self, one: Any, other: Any) -> Any:
        """Return the sum."""
        return self.builder.fadd(one, other)

    def subtract(self, one: Any, other: Any) -> Any:
        """Return the difference."""
        return self.builder.fsub(one, other)

    def times(self, one: Any, other: Any) -> Any:
        """Return the product."""
        return self.builder.fmul(one, other)

    def over(self, one: Any, other: Any) -> Any:
        """Return the quotient."""
        return self.builder.fdiv(one, other)

    def at_most(self, value: Any, most: float) -> Any:
        """Return the smaller number; NaN of NaN."""
        limit = self.number(most)
        return self.builder.select(self.builder.fcmp_ordered(">", value, limit), limit, value)

    def cut(self, value: Any, most: float) -> Any:
        """Return the number cut to -most..most; NaN of NaN."""
        least = self.number(-most)
        value = self.at_most(value, most)
        return self.builder.select(self.builder.fcmp_ordered("<", value, least), least, value)

    def power(self, y: Any) -> Any:
        """Return 2^y, for |y| <= 125."""
        raised, series, r = self._parts(y)
        near = self.fma(series, r, self.number(1))  # 2^r, whose exponent's bits take n
        return self.builder.bitcast(self.builder.add(self.builder.bitcast(near, _words), raised), _vector)

    def power_and_less(self, y: Any) -> tuple[Any, Any]:
        """Return 2^y and 2^y - 1, the latter without cancellation where y is small, for |y| <= 125."""
        raised, series, r = self._parts(y)
        one = ir.Constant(_words, [0x3F800000] * LANES)
        whole = self.builder.bitcast(self.builder.add(raised, one), _vector)  # 2^n
        near = self.times(series, r)  # 2^r - 1
        return self.fma(whole, near, whole), self.fma(whole, near, self.subtract(whole, self.number(1)))

    def scalar_products(self, rows: Any, factors: Any, units: Any) -> Any:
        """Return the scalar products of `LANES` rows of so many units, one below the other, and one row of factors."""

        def add(unit: Any, sums: list[Any]) -> list[Any]:
            lanes = self.first(self.builder.sub(units, unit))
            factor = self.load_some(self.after(factors, unit), lanes)
            row, found = self.after(rows, unit), []
            for one in sums:
                found.append(self.fma(self.load_some(row, lanes), factor, one))
                row = self.after(row, units)
            return found

        sums = self.loop(units, LANES, [self.number(0)] * LANES, add)
        while len(sums) > 1:  # neighbouring lanes are added, of two vectors at once, until a lane is a row's sum
            sums = [
                self.add(*(self.builder.shuffle_vector(one, other, self._every_second(start)) for start in range(2)))
                for one, other in zip(sums[::2], sums[1::2], strict=True)
            ]
        return sums[0]

    def _every_second(self, start: int) -> Any:
        """Return which lanes of two vectors are taken: every second one."""
        return ir.Constant(_words, list(range(start, 2 * LANES, 2)))

    def _parts(self, y: Any) -> tuple[Any, Any, Any]:
        """Return n in the bits of an exponent, (2^r - 1) / r, and r."""
        shifted = self.add(y, self.number(ROUNDER))
        r = self.subtract(y, self.subtract(shifted, self.number(ROUNDER)))
        square = self.times(r, r)
        pairs = [
            self.fma(self.number(high), r, self.number(low))
            for low, high in zip(SERIES[::2], SERIES[1::2], strict=True)
        ]
        *lower, series = pairs  # in pairs, which do not wait for one another (Estrin's scheme)
        for pair in reversed(lower):
            series = self.fma(series, square, pair)
        bits = ir.Constant(_words, [MANTISSA_BITS] * LANES)
        return self.builder.shl(self.builder.bitcast(shifted, _words), bits), series, r

    def _spread(self, number: Any, kind: Any) -> Any:
        nothing = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(nothing, number, _word(0))
        return self.builder.shuffle_vector(first, nothing, ir.Constant(_words, [0] * LANES))

    def _function(self, name: str, result: Any, arguments: list[Any]) -> Any:
        known = self.builder.module.globals.get(name)
        return known or ir.Function(self.builder.module, ir.FunctionType(result, arguments), name)


SERIES = _series()
