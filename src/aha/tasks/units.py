"""The words that may stand beside a number without changing it: units, money, counted things.

    7 cm   7 km/h   7 square feet   7 cm^2   18 dollars per day   $5   90 degrees   7 apples   7 %

This is a list of what is allowed. A word that is not on it ("dozens", "thirds", "factorial",
"million", "squared", "less") makes the text no number, because it may change the value. Words that
are units and multiples at once ("K", "decades", "pairs") are left out on purpose.
"""

import re

Unit = tuple[str, ...]  # canonical factors with "/" and "of" between them; () is no unit

# canonical name -> (abbreviations, written exactly so; whole words, in any case and number)
_MEASURES: dict[str, tuple[str, str]] = {
    **{"mm": ("mm", "millimeter millimetre"), "cm": ("cm", "centimeter centimetre")},
    **{"m": ("m", "meter metre"), "km": ("km", "kilometer kilometre"), "ft": ("ft", "foot feet")},
    **{"in": ("in", "inch"), "yd": ("yd yds", "yard"), "mi": ("mi", "mile")},
    **{"mg": ("mg", "milligram"), "g": ("g", "gram"), "kg": ("kg kgs", "kilogram")},
    **{"lb": ("lb lbs", ""), "pound": ("", "pound"), "oz": ("oz", "ounce"), "ton": ("", "ton")},
    **{"ms": ("ms", "millisecond"), "s": ("s sec secs", "second"), "h": ("h hr hrs", "hour")},
    **{"min": ("min mins", "minute"), "day": ("", "day"), "week": ("wk wks", "week")},
    **{"month": ("", "month"), "year": ("yr yrs", "year"), "am": ("am", ""), "pm": ("pm", "")},
    **{"ml": ("ml mL", "milliliter millilitre"), "l": ("l L", "liter litre")},
    **{"gal": ("gal", "gallon"), "qt": ("qt qts", "quart"), "pt": ("", "pint"), "cup": ("", "cup")},
    **{"tbsp": ("tbsp", "tablespoon"), "tsp": ("tsp", "teaspoon"), "acre": ("", "acre")},
    **{"ha": ("", "hectare"), "°": ("deg °", "degree"), "rad": ("rad", "radian")},
    **{"°C": ("°C", ""), "°F": ("°F", ""), "%": ("%", "percent"), "unit": ("", "unit")},
    **{"usd": ("USD US$ $", "dollar buck"), "cent": ("¢", "cent"), "eur": ("EUR €", "euro")},
    **{"gbp": ("GBP £", ""), "jpy": ("JPY", "yen"), "cny": ("CNY RMB", "yuan"), "¥": ("¥", "")},
    **{"inr": ("INR Rs Rs. ₹", "rupee"), "peso": ("", "peso"), "W": ("", "watt"), "kW": ("kW", "")},
    **{"kWh": ("kWh", ""), "V": ("", "volt"), "A": ("", "ampere amp"), "Ω": ("", "ohm")},
    **{"J": ("", "joule"), "N": ("", "newton"), "Hz": ("Hz", "hertz"), "cal": ("", "calorie")},
    **{"byte": ("", "byte"), "KB": ("KB", "kilobyte"), "MB": ("MB", "megabyte")},
    **{"GB": ("GB", "gigabyte"), "mph": ("mph", ""), "kph": ("kph", "")},
}
_AS_FACTORS: dict[str, Unit] = {"mph": ("mi", "/", "h"), "kph": ("km", "/", "h")}
# A word with two meanings is the same as either of them.
_EITHER = {frozenset(pair) for pair in [("pound", "lb"), ("pound", "gbp"), ("¥", "jpy")]}
_EITHER.add(frozenset(("¥", "cny")))

# What word problems count. A thing that is not here is known where the question asks for it.
_THINGS = frozenset(
    "adult animal apple bag ball balloon banana bead bean bicycle bike bird block boat book bottle "
    "bowl box boy bracelet brick brother bus bush button cake calf candle candy car card cat chair "
    "chicken child choice circle class clip coin color cookie cow crayon customer desk dog doll "
    "door dress duck edge egg face family fish flower friend fruit game gift girl goat grape guest "
    "hat hen home horse house integer key kid lamp lap lemon letter man marble match member "
    "message muffin necklace notebook number orange outcome page painting paper part "
    "passenger "
    "peach pear pen pencil people permutation person photo picture pie piece pig pizza plant plate "
    "player point post potato problem question rabbit rectangle ring room root rose row ruler "
    "seat sheep shell shirt shoe side sister slice snack sock solution square staff stamp star "
    "sticker stone stop story student subset table task teacher team ticket tile tire toy train "
    "tree triangle truck turtle value vertex video visitor vote wall way wheel window woman word "
    "worker".split()
)
_IRREGULAR = {"children": "child", "men": "man", "women": "woman", "calves": "calf"}
_IRREGULAR |= {"cookies": "cookie", "pies": "pie", "movies": "movie", "buses": "bus"}
_IRREGULAR |= {"vertices": "vertex", "people": "person", "persons": "person", "feet": "foot"}

# Words that a question may count and that change a number, or that say nothing about a thing.
NEVER_THINGS = frozenset(
    "a about above additional all almost an and another any approximately are as at be below big "
    "bigger but by can combined could couple cubed decade did different digit divided do does "
    "double dozen each either eight eighth eighteen eighty eleven equal even exactly extra factor "
    "fewer fifteen fifth fifty first five for fold fortnight forty four fourteen fourth from "
    "gross half halve halves has have how hundred hundredth if in into is k kind lakh crore large "
    "larger least left less many mil mill million millionth minus mod modulo more most much "
    "multiple myriad negative nine nineteen ninety ninth no none nor not odd of on one or order "
    "other out over pair percentage per plus power product quarter quartet quintuple "
    "ratio remaining score second set seven seventeen seventh seventy several six sixteen "
    "sixth sixty small smaller some square squared sum ten tenth than that the them there third "
    "thirteen thirty thousand thousandth three time times to top total trillion billion bn "
    "billionth trio triple twelfth twelve twenty twice two under unless up was were what when "
    "which who will with without would x zero hundreds century centuries ream grand quad quadruple "
    "septuple sextuple octet googol duo twin brace".split()
)

_TOKEN = re.compile(
    r"\s*(?:(?P<word>(?:US\$|°[CF]\b|[A-Za-z]+\.?|[%°¢$€£¥₹]))"
    r"(?P<power>\s?\^\s?\{?[23]\}?(?!\d)|[²³])?|(?P<slash>/))"
)
_SQUARES = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
MONEY = (
    "US$",
    "USD",
    "Rs.",
    "EUR",
    "GBP",
    "JPY",
    "CNY",
    "RMB",
    "INR",
    "Rs",
    "$",
    "€",
    "£",
    "¥",
    "₹",
)


def _table() -> dict[str, str]:
    """Every spelling of a measure, and its canonical name."""
    table: dict[str, str] = {}
    for name, (short, words) in _MEASURES.items():
        for spelling in short.split():
            table[spelling] = name
            # "MM" is a million in accounts, and one capital letter may be anything.
            if spelling.isalpha() and len(spelling) > 1 and spelling not in ("mm", "ms", "mL"):
                table.setdefault(spelling.upper(), name)
        table |= dict.fromkeys(words.split(), name)
    return table


_SPELLINGS = _table()
# What may stand right after the digits. Not "m": 7m is seven million to an accountant.
COMPACT = frozenset(
    "mm cm km ft in yd mi mg g kg lb lbs oz s sec h hr hrs min ml mL l L mph kph am pm % ° °C °F "
    "¢ $ € £ kW kWh MB GB KB Hz".split()
)


def singular(word: str) -> str:
    """The word in lower case without the ending of its plural, as far as a rule gives it."""
    word = word.lower()
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    for ending, instead in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + instead
    if word.endswith("oes") or word.endswith("sses"):
        return word.removesuffix("es")
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word


def measure(word: str) -> str | None:
    """The canonical name of a unit in any of its spellings, or None."""
    word = word.removesuffix(".")
    if word in _SPELLINGS:
        return _SPELLINGS[word]
    lower = word.lower()
    if len(lower) < 3:
        return None  # abbreviations count only as they are written: "m" is no "M"
    return next((_SPELLINGS[s] for s in (lower, singular(lower)) if s in _SPELLINGS), None)


def thing(word: str, things: frozenset[str]) -> str | None:
    """The singular of a counted thing, or None for a word that is none. `things`: those that the
    question counts."""
    base = singular(word.removesuffix("."))
    if base in _THINGS or (base in things and base not in NEVER_THINGS):
        return base
    return None


def counted_things(question: str) -> frozenset[str]:
    """The singulars of the words after "how many" in a question, up to the end of that phrase.

    A word that can change a number ("dozens", "more") is never among them.
    """
    words: set[str] = set()
    for phrase in re.findall(r"\bhow many((?: [a-z]+){1,4})", question.lower())[:20]:
        named: set[str] = set()
        for word in phrase.split():
            if word in ("more", "fewer", "other", "different", "additional", "extra", "total"):
                continue
            if word == "of" and named:
                continue  # "cups of feed"
            if word in NEVER_THINGS or singular(word) in NEVER_THINGS:
                break  # "how many red marbles | does": the phrase is over
            if len(word) > 2:
                named.add(singular(word))
        words |= named
    return frozenset(words)


def read_unit(text: str, things: frozenset[str] = frozenset()) -> Unit | None:
    """The unit that `text` is, from its first character to its last; None where a part of it is no
    known unit, () where it is empty."""
    factors: list[str] = []
    position, joined, prefix, things_may_follow = 0, True, "", True
    text = re.sub(r"\b([ap])\.m\b\.?", r"\1m", text.rstrip())
    text = re.sub(r"(?:°|\bdegrees?) ?(C|F|[Cc]elsius|[Ff]ahrenheit)\b", _temperature, text)
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        position = match.end()
        word = match["word"]
        if match["slash"] or word in ("per", "a", "an", "of"):
            if joined or match["power"]:
                return None
            factors.append("of" if word == "of" else "/")
            joined = things_may_follow = True
            continue
        if joined and not prefix and word.lower().rstrip(".") in _SQUARES:
            # "square" is a thing as well, where nothing follows it: "7 squares" is not one of these
            prefix = _SQUARES[word.lower().rstrip(".")]
            continue
        factor = _factor(match, prefix, joined, things)
        if factor is None:
            return None
        named = measure(word) is None
        if named and not things_may_follow:
            return None  # "percent points" is neither
        factors += factor
        joined, prefix, things_may_follow = False, "", named
    return None if (factors and joined) or prefix else tuple(factors)


def _temperature(match: re.Match[str]) -> str:
    return f" °{match[1][0].upper()}"


def _factor(match: re.Match[str], prefix: str, joined: bool, things: frozenset[str]) -> Unit | None:
    """One word with its power as canonical factors; None for a word that is not allowed there."""
    name = measure(match["word"])
    power = re.sub(r"\D", "", (match["power"] or "").translate({0xB2: "2", 0xB3: "3"})) or prefix
    if name is not None:
        # Two measures side by side ("feet inches") are not one unit.
        if not joined or (prefix and match["power"]):
            return None
        name = f"{name}^{power}" if power else name
        return _AS_FACTORS.get(name, (name,))
    name = thing(match["word"], things)
    return None if name is None or power else (name,)


def same_unit(first: Unit, second: Unit) -> bool:
    """Whether two units are the same; no unit agrees with any."""
    if not first or not second or first == second:
        return True
    return len(first) == len(second) and all(
        a == b or frozenset((a, b)) in _EITHER for a, b in zip(first, second, strict=True)
    )
