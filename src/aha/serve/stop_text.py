"""The text of a completion in the making, told in pieces that never have to be taken back."""

from collections.abc import Callable, Sequence

HALF = "\ufffd"  # how a character of several tokens reads until it is whole


class TextStream:
    """Turns growing tokens into text, and ends it before the first of the `stop` texts."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...] = ()):
        self.decode, self.stop = decode, stop
        self.told = ""
        self.cut = False

    def read(self, tokens: Sequence[int], ended: bool) -> str:
        """What can be told since the last call; all that is left when the completion has ended.

        What may yet turn out to be the beginning of a stop text is held back.
        """
        text = self.decode(tokens)
        places = [place for place in (text.find(one) for one in self.stop) if place >= 0]
        if places:
            text, self.cut = text[: min(places)], True
        elif not ended:
            text = text.rstrip(HALF)
            text = text[: len(text) - self.held_back(text)]
        new = text[len(self.told) :]
        self.told += new
        return new

    def held_back(self, text: str) -> int:
        """The longest end of `text` with which a stop text begins."""
        longest = max(map(len, self.stop), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(one.startswith(text[-size:]) for one in self.stop):
                return size
        return 0
