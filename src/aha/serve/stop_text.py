"""The text of a completion that is being generated, in pieces that never have to be taken back."""

from collections.abc import Callable, Sequence

INCOMPLETE = "\ufffd"  # a character of several tokens decodes to this until its last token is there


class TextStream:
    """Turns growing tokens into text, and ends it before the first of the `stop` texts."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...] = ()):
        self.decode, self.stop = decode, stop
        self.text = ""  # what `read` has returned so far
        self.stopped = False  # a stop text was met

    def read(self, tokens: Sequence[int], ended: bool) -> str:
        """The text that is new since the last call, given all tokens so far.

        An end that may become a stop text or is an incomplete character is held back, unless the
        completion has ended.
        """
        text = self.decode(tokens)
        begins = [begin for begin in (text.find(stop) for stop in self.stop) if begin >= 0]
        if begins:
            text, self.stopped = text[: min(begins)], True
        elif not ended:
            text = text.rstrip(INCOMPLETE)
            text = text[: len(text) - self.held_back(text)]
        new = text[len(self.text) :]
        self.text += new
        return new

    def held_back(self, text: str) -> int:
        """The length of the longest end of `text` with which a stop text begins."""
        longest = max(map(len, self.stop), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self.stop):
                return size
        return 0
