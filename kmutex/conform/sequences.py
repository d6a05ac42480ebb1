"""Random sequences from the model, and shrinking one that fails."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from kmutex.conform.case import ASKING, Case, CaseError, Move
from kmutex.conform.expected import make_case
from kmutex.conform.vectors import Stand, candidates

RANDOM_KEYS = "abc"
RANDOM_ALIVE = 5
RANDOM_MOVES = 12
RANDOM_CALLS = 12
MOST_COURSES = 12
"""Of a random sequence. Each meeting of commands that stays undecided doubles them."""


def random_case(seed: int, features: frozenset[str]) -> Case:
    """Return a random case for a port with these features, the same for the same arguments."""
    choice = random.Random(seed)
    length = choice.randint(2, RANDOM_MOVES)
    keys = RANDOM_KEYS[: choice.randint(1, len(RANDOM_KEYS))]
    moves: tuple[Move, ...] = ()
    case = make_case(moves)
    for _ in range(length):
        # Two calls may be asked for in one move.
        stand = Stand(moves, RANDOM_ALIVE, keys)
        if stand.made + 2 > RANDOM_CALLS:
            break
        following = candidates(stand)
        choice.shuffle(following)
        for move in following:
            try:
                longer = make_case((*moves, move))
            except CaseError:
                continue
            if set(longer.needs) <= features and len(longer.courses) <= MOST_COURSES:
                moves, case = (*moves, move), longer
                break
        else:
            break
    return case


def simpler(moves: Sequence[Move]) -> Iterator[tuple[Move, ...]]:
    """Yield shorter sequences, the boldest first: without a call, a move, a meeting, or a timeout.

    Some of them are not cases.
    """
    calls = sum(command.op in ASKING for move in moves for command in move)
    for size in (len(moves) // 2, 1):
        for start in range(0, len(moves), size) if size else ():
            yield renumbered([*moves[:start], *moves[start + size :]])
    for call in range(calls):
        without = renumbered([tuple(command for command in move if command.call != call) for move in moves])
        yield without
        # The unlock that served this call may be needed by it, so the two are dropped together.
        yield from (renumbered([*without[:number], *without[number + 1 :]]) for number in range(len(without)))
    for number, move in enumerate(moves):
        if len(move) > 1:
            for command in move:
                yield renumbered([*moves[:number], tuple(c for c in move if c != command), *moves[number + 1 :]])
            yield renumbered([*moves[:number], *((command,) for command in move), *moves[number + 1 :]])
        for place, command in enumerate(move):
            if command.op in ASKING - {"lock"}:
                lock = (*move[:place], command._replace(op="lock", ms=None), *move[place + 1 :])
                yield (*moves[:number], lock, *moves[number + 1 :])


def renumbered(moves: Sequence[Move]) -> tuple[Move, ...]:
    """Return the moves with calls renumbered from 0, without empty moves and commands of calls that were dropped."""
    numbers: dict[int, int] = {}
    kept = []
    for move in moves:
        commands = []
        for command in move:
            if command.call is None:
                commands.append(command)
            elif command.op in ASKING:
                numbers[command.call] = len(numbers)
                commands.append(command._replace(call=numbers[command.call]))
            elif command.call in numbers:
                commands.append(command._replace(call=numbers[command.call]))
        if commands:
            kept.append(tuple(commands))
    return tuple(kept)
