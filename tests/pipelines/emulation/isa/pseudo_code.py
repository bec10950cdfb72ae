"""A small evaluator of AMD's instruction pseudo-code (as the tinygrad wheel carries it), for one lane.

Values are `Number`s: an integer or float with a width.  Registers are plain integers of bits.  Only what
the plain
vector and scalar instructions use is understood; anything else raises NotImplementedError."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

TOKEN = re.compile(
    r"""\s*(?:
    (?P<cast>\d+'(?:BF|[UIFB])(?=\())|(?P<sized>\d+'-?(?:0x[0-9a-fA-F]+|\d+\.\d+|\d+)U?)|(?P<hex>0x[0-9a-fA-F]+)(?:ULL|LL|U)?|
    (?P<float>\d+\.\d+)F?|(?P<long>\d+)(?:ULL|LL)|(?P<int>\d+)U?|(?P<name>[A-Za-z_]\w*)|
    (?P<op>\*\*|<<|>>|<=|>=|==|!=|<>|&&|\|\||\+=|-=|[-+*/&|^~!<>=?:(){}\[\],.;])
)""",
    re.VERBOSE,
)
FLOAT_TYPES = {"f16": np.float16, "f32": np.float32, "f64": np.float64}


@dataclass
class Number:
    """kind is u, i, f or b (raw bits)."""

    value: int | float
    width: int
    kind: str

    def bits(self) -> int:
        if self.kind == "f":
            with np.errstate(all="ignore"):
                return int.from_bytes(FLOAT_TYPES[f"f{self.width}"](self.value).tobytes(), "little")
        return int(self.value) & ((1 << self.width) - 1)

    def number(self):
        return self.value


def from_bits(bits: int, width: int, kind: str) -> Number:
    bits &= (1 << width) - 1
    if kind == "f":
        raw = bits.to_bytes(width // 8, "little")
        return Number(float(np.frombuffer(raw, FLOAT_TYPES[f"f{width}"])[0]), width, "f")
    if kind == "i" and bits >> (width - 1):
        bits -= 1 << width
    return Number(bits, width, kind)


def rounded(value, width: int) -> Number:
    """Nearest float of the width (ties to even); `value` may be a Fraction."""
    kind = FLOAT_TYPES[f"f{width}"]
    if not isinstance(value, Fraction) or not value:
        with np.errstate(all="ignore"):
            return Number(float(kind(float(value))), width, "f")
    with np.errstate(all="ignore"):
        near = kind(float(value)) if abs(value) < 2**1024 else kind(math.copysign(np.inf, value))
        if not np.isfinite(near):
            return Number(float(near), width, "f")
        options = [near, np.nextafter(near, kind(np.inf)), np.nextafter(near, kind(-np.inf))]
    finite = [option for option in options if np.isfinite(option)]
    best = min(finite, key=lambda o: (abs(Fraction(float(o)) - value), int.from_bytes(o.tobytes(), "little") & 1))
    return Number(float(best), width, "f")


def fma(a: Number, b: Number, c: Number) -> Number:
    if all(math.isfinite(x.value) for x in (a, b, c)):
        exact = Fraction(a.value) * Fraction(b.value) + Fraction(c.value)
        if exact:
            return rounded(exact, a.width)
        return Number(a.value * b.value + c.value, a.width, "f")
    with np.errstate(all="ignore"):
        product = float(np.float64(a.value) * np.float64(b.value))
        if math.isfinite(a.value) and math.isfinite(b.value):
            product = 0.0
        return Number(float(np.float64(product) + np.float64(c.value)), a.width, "f")


def is_signal(a: Number) -> bool:
    raise NotImplementedError("signalling NaN")


class Break(Exception):
    """`break` of the pseudo-code."""


class Evaluator:
    """Runs one instruction's text.  `registers` maps S0, S1, S2, D0, VCC, SCC to integers and receives the
    results."""

    def __init__(self, text: str, registers: dict[str, int], lane: int = 0):
        text = re.sub(r"//[^\n]*|declare [^;\n]*", "", text).replace("\n", " ; ")
        self.tokens, position = [], 0
        while position < len(text.rstrip()):
            match = TOKEN.match(text, position)
            if match is None:
                raise NotImplementedError(text[position : position + 20])
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()
        self.at, self.names, self.lane = 0, dict(registers), lane

    def peek(self):
        return self.tokens[self.at][1] if self.at < len(self.tokens) else None

    def take(self, expected=None):
        token = self.tokens[self.at]
        if expected is not None and token[1] != expected:
            raise NotImplementedError(f"expected {expected}, found {token[1]}")
        self.at += 1
        return token

    def run(self) -> dict[str, int]:
        while self.at < len(self.tokens):
            self.statement(True)
        return self.names

    def block(self, ends, live: bool) -> None:
        while self.peek() not in ends:
            self.statement(live)

    def statement(self, live: bool) -> None:
        token = self.peek()
        if token == ";":
            self.take()
        elif token == "if":
            self.if_statement(live)
        elif token == "for":
            self.for_statement(live)
        elif token == "break":
            self.take()
            if live:
                raise Break
        else:
            self.assignment(live)

    def if_statement(self, live: bool) -> None:
        done = False
        self.take("if")
        while True:
            condition = truth(self.ternary())
            self.take("then")
            self.block(("elsif", "else", "endif"), live and condition and not done)
            done = done or condition
            keyword = self.take()[1]
            if keyword == "else":
                self.block(("endif",), live and not done)
                self.take("endif")
                return
            if keyword == "endif":
                return

    def for_statement(self, live: bool) -> None:
        self.take("for")
        name = self.take()[1]
        self.take("in")
        first = int(self.ternary().value)
        self.take(":")
        last = int(self.ternary().value)
        self.take("do")
        start = self.at
        broken = False
        for i in range(first, last + 1):
            self.at = start
            self.names[name] = Number(i, 32, "i")
            try:
                self.block(("endfor",), live and not broken)
            except Break:
                broken = True
                depth = 0
                while self.peek() != "endfor" or depth:
                    self.take()
        self.take("endfor")

    def assignment(self, live: bool) -> None:
        if self.peek() == "{":
            self.take()
            targets = [self.target()]
            while self.peek() == ",":
                self.take()
                targets.append(self.target())
            self.take("}")
            self.take("=")
            value = self.ternary()
            if live:
                low = targets[-1][3] - targets[-1][2] + 1
                self.store(targets[-1], from_bits(value.bits(), low, "b"))
                self.store(targets[0], from_bits(value.bits() >> low, 1, "b"))
            return
        targets = [self.target()]
        operator = self.take()[1]
        if operator not in ("=", "+=", "-="):
            raise NotImplementedError(operator)
        value = self.ternary()
        while self.peek() == "=":
            raise NotImplementedError("chained assignment")
        if operator != "=":
            old = self.load(targets[0])
            value = arithmetic(operator[0], old, value)
        if live:
            for target in targets:
                self.store(target, value)

    def target(self):
        """(name, kind or None, low bit, high bit) of an assignable place."""
        name, kind, low, high = self.take()[1], None, None, None
        while self.peek() in (".", "["):
            if self.take()[1] == ".":
                kind = self.take()[1]
                continue
            high = int(self.ternary().value)
            low = high
            if self.peek() == ":":
                self.take()
                low = int(self.ternary().value)
            self.take("]")
        if kind and low is None:
            low, high = 0, int(re.sub(r"\D", "", kind)) - 1
        return name, kind, low, high

    def load(self, target) -> Number:
        name, kind, low, high = target
        value = self.names[name]
        if kind is None and low is None:
            return value
        bits = value if isinstance(value, int) else value.bits()
        return from_bits(bits >> low, high - low + 1, (kind or "b")[0])

    def store(self, target, value: Number) -> None:
        name, kind, low, high = target
        if low is None and name not in ("D0", "VCC", "SCC", "D1"):
            self.names[name] = value
            return
        if low is None:
            low, high = 0, 63
        if low > high:
            value = Number(int(f"{value.bits():0{low + 1}b}"[::-1], 2), low + 1, "b")
            low, high = high, low
        width = high - low + 1
        if kind and kind.startswith("f") and kind[1:].isdigit() and value.kind == "f":
            value = rounded(value.value, width)
        mask = (1 << width) - 1
        old = self.names.get(name, 0)
        old = old if isinstance(old, int) else old.bits()
        new = old & ~(mask << low) | (value.bits() & mask) << low
        self.names[name] = new if name in ("D0", "D1", "VCC", "SCC") else Number(new, max(high + 1, 64), "b")

    # Expressions, loosest first

    def ternary(self) -> Number:
        condition = self.binary(0)
        if self.peek() != "?":
            return condition
        self.take()
        yes = self.ternary()
        self.take(":")
        no = self.ternary()
        return yes if truth(condition) else no

    LEVELS = (
        ("||",),
        ("&&",),
        ("|",),
        ("^",),
        ("&",),
        ("==", "!=", "<>"),
        ("<", ">", "<=", ">="),
        ("<<", ">>"),
        ("+", "-"),
        ("*", "/"),
        ("**",),
    )

    def binary(self, level: int) -> Number:
        if level == len(self.LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while self.peek() in self.LEVELS[level]:
            operator = self.take()[1]
            left = arithmetic(operator, left, self.binary(level + 1))
        return left

    def unary(self) -> Number:
        token = self.peek()
        if token in ("!", "~", "-", "+"):
            self.take()
            value = self.unary()
            if token == "!":
                return Number(int(not truth(value)), 1, "u")
            if token == "~":
                return from_bits(~value.bits(), value.width, value.kind)
            if token == "-":
                return Number(-value.value, value.width, value.kind)
            return value
        return self.postfix(self.primary())

    def postfix(self, value: Number) -> Number:
        while self.peek() in (".", "["):
            if self.take()[1] == ".":
                kind = self.take()[1]
                width = int(re.sub(r"\D", "", kind))
                bits = value.bits() if value.width <= 64 else value.value
                if kind.startswith("bf"):
                    value = from_bits(bits << 16, 32, "f")
                elif value.kind == "f" and kind[0] == "f":
                    value = rounded(value.value, width)
                elif kind in ("fp8", "bf8"):
                    raise NotImplementedError(kind)
                else:
                    value = from_bits(bits, width, kind[0])
                continue
            high = int(self.ternary().value)
            low = high
            if self.peek() == ":":
                self.take()
                low = int(self.ternary().value)
            self.take("]")
            bits = value.bits()
            if low > high:
                part = f"{bits:0{low + 1}b}"[-(low + 1) :][::-1]
                value = Number(int(part, 2), low - high + 1, "u")
            else:
                value = from_bits(bits >> low, high - low + 1, "u")
        return value

    def primary(self) -> Number:
        group, token = self.take()
        if group == "cast":
            width, kind = token.split("'")
            self.take("(")
            value = self.ternary()
            self.take(")")
            return convert(value, int(width), kind)
        if group == "sized":
            width, text = token.rstrip("U").split("'")
            return Number(float(text), int(width), "f") if "." in text else Number(int(text, 0), int(width), "u")
        if group == "hex":
            return Number(int(token, 16), 64 if len(token) > 10 else 32, "b")
        if group == "float":
            suffix = self.tokens[self.at - 1]
            return Number(float(suffix[1]), 64, "f")
        if group == "long":
            return Number(int(token), 64, "i")
        if group == "int":
            return Number(int(token), 32, "i")
        if token == "(":
            value = self.ternary()
            self.take(")")
            return value
        if token == "{":
            parts = [self.ternary()]
            while self.peek() == ",":
                self.take()
                parts.append(self.ternary())
            self.take("}")
            bits = width = 0
            for part in reversed(parts):
                bits |= part.bits() << width
                width += part.width
            return Number(bits, width, "b")
        if group != "name":
            raise NotImplementedError(token)
        if self.peek() == "(":
            self.take()
            arguments = [] if self.peek() == ")" else [self.ternary()]
            while self.peek() == ",":
                self.take()
                arguments.append(self.ternary())
            self.take(")")
            return call(token, arguments)
        constants = {"INF": math.inf, "NAN": math.nan, "PI": math.pi}
        if token in constants:
            return Number(constants[token], 64, "f")
        if token == "laneId":
            return Number(self.lane, 32, "u")
        if token not in self.names:
            raise NotImplementedError(token)
        value = self.names[token]
        return Number(value, 64, "b") if isinstance(value, int) else value


def truth(value: Number) -> bool:
    return bool(value.value)


def convert(value: Number, width: int, kind: str) -> Number:
    if kind == "F":
        return rounded(value.value, width) if value.kind != "b" else from_bits(value.bits(), width, "f")
    if kind == "BF":
        raise NotImplementedError(kind)
    return from_bits(int(value.value) if value.kind != "f" else value.bits(), width, kind.lower())


def arithmetic(operator: str, a: Number, b: Number) -> Number:
    if operator == "||":
        return Number(int(truth(a) or truth(b)), 1, "u")
    if operator == "&&":
        return Number(int(truth(a) and truth(b)), 1, "u")
    x, y = a.value, b.value
    compare = {
        "==": x == y,
        "!=": x != y,
        "<>": x < y or x > y,
        "<": x < y,
        ">": x > y,
        "<=": x <= y,
        ">=": x >= y,
    }
    if operator in compare:
        return Number(int(compare[operator]), 1, "u")
    if "f" in (a.kind, b.kind):
        # A float literal takes the width of the other operand, as C's usual conversions would not: all are
        # exact here.
        width = min(n.width for n in (a, b) if n.kind == "f")
        with np.errstate(all="ignore"):
            p, q = np.float64(x), np.float64(y)
            if operator == "**":
                return Number(float(p**q), 64, "f")
            result = {"+": p + q, "-": p - q, "*": p * q, "/": p / q}[operator] if operator in "+-*/" else None
        if result is None:
            raise NotImplementedError(operator)
        return rounded(float(result), width)
    width = max(a.width, b.width, 32)
    kind = (
        "i" if a.kind == "i" and b.kind in ("i", "u") else "u" if a.kind == "u" else b.kind if a.kind == "b" else a.kind
    )
    if operator in ("<<", ">>"):
        width, kind = max(a.width, 32), a.kind
        result = x << y if operator == "<<" else x >> y
    elif operator == "**":
        return Number(float(2.0**y if y < 5000 else math.inf), 64, "f")
    else:
        result = {"+": x + y, "-": x - y, "*": x * y, "|": x | y, "&": x & y, "^": x ^ y}[operator]
    return from_bits(result, width, kind)


def _to_integer(value: float, low: int, high: int) -> int:
    if math.isnan(value):
        return 0
    return int(min(max(value, low), high)) if math.isfinite(value) else (high if value > 0 else low)


def call(name: str, arguments: list[Number]) -> Number:
    """The functions that the pseudo-code takes as known."""
    a = arguments[0]
    if name == "fma":
        return fma(*arguments)
    if name == "isNAN":
        return Number(int(math.isnan(a.value)), 1, "u")
    if name in ("isSignalNAN", "isQuietNAN"):
        # Inputs of these tests hold quiet NaNs only; signalling ones do not survive Python's floats.
        return Number(int(name == "isQuietNAN" and math.isnan(a.value)), 1, "u")
    if name == "cvtToQuietNAN":
        return a
    if name in ("floor", "trunc"):
        if not math.isfinite(a.value):
            return a
        result = float(getattr(math, name)(a.value))
        return Number(math.copysign(result, a.value) if result == 0 else result, a.width, "f")
    if name == "fract":
        return Number(a.value - math.floor(a.value) if math.isfinite(a.value) else math.nan, a.width, "f")
    if name == "isEven":
        return Number(int(math.isfinite(a.value) and a.value % 2 == 0), 1, "u")
    if name == "abs":
        return Number(abs(a.value), a.width, a.kind)
    if name == "sign":
        return Number(a.bits() >> (a.width - 1), 1, "u")
    if name == "exponent":
        low, mask = {16: (10, 31), 32: (23, 255), 64: (52, 2047)}[a.width]
        return Number(a.bits() >> low & mask, 32, "i")
    if name == "signext":
        return Number(from_bits(a.bits(), a.width, "i").value, 64, "i")
    if name == "signext_from_bit":
        width = int(arguments[1].value)
        return from_bits(from_bits(a.bits(), width, "i").value if width else 0, a.width, "i")
    if name == "sqrt":
        return rounded(
            math.sqrt(a.value) if a.value >= 0 else math.copysign(math.nan, 1) if a.value != 0 else a.value,
            a.width,
        )
    if match := re.fullmatch(r"v_(min|max)(3?)_([fiu])(\d+)", name):
        choose = min if match[1] == "min" else max
        numbers = [n for n in arguments if not (n.kind == "f" and math.isnan(n.value))]
        if not numbers:
            return arguments[-1]
        best = choose(numbers, key=lambda n: (n.value, -(n.kind == "f" and math.copysign(1, n.value) < 0)))
        return best
    if match := re.fullmatch(r"(?:([fiu])(\d+)|bf16)_to_([fiu])(\d+)", name):
        width, kind = int(match[4]), match[3]
        if kind == "f":
            return rounded(a.value, width)
        if a.kind == "f":
            low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if kind == "i" else (0, (1 << width) - 1)
            return Number(_to_integer(a.value, low, high), width, kind)
        if int(match[2]) > width:  # narrowing saturates
            low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if kind == "i" else (0, (1 << width) - 1)
            return Number(min(max(a.value, low), high), width, kind)
        return Number(a.value, width, kind)
    raise NotImplementedError(name)
