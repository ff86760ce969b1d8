"""Exceptions of the package: mistakes that the user can mend (one line, exit code 2), and a stop by a signal."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in the config, a file or the environment; the message is one line: where, and what to do."""


class NotFetched(UserError):
    """Something that the config names is to be fetched first; the message has the command, mode=fetch."""


class Unavailable(UserError):
    """A mistake of the surroundings, not of the config: once it is mended, the same command goes on."""


def few(names: Sequence[str], limit: int = 3) -> str:
    """The first names of many, and how many there are: `a, b, c and 4 more`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


class BadRow(Exception):
    """A row that can be read but not used; the message is the reason under which it is counted."""


class Stopped(BaseException):
    """A signal asked the process to end; no Exception, so that nobody on the way takes it for a fault.

    Nor a KeyboardInterrupt, at which Lightning ignores further signals and exits by itself.
    number: the signal's; code: the exit code
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.code = 128 + number


def no_room(longest: int, new: int, context: int, name: str) -> UserError:
    """What is said of a prompt and an answer, in tokens, that outrun a model's context."""
    return UserError(
        f"recipe.max_prompt_tokens + recipe.max_new_tokens: {longest} + {new} tokens do not fit the {context} of "
        f"{name}: lower one of them"
    )
