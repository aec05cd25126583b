"""Drawing the requests of a traffic into one table."""

from __future__ import annotations

from math import inf

import numpy as np

from graphsim.errors import ConfigError
from graphsim.traffic.arrivals import arrival_times, own_processes
from graphsim.traffic.classes import RequestClass, draw_classes, priority_of
from graphsim.traffic.draws import Draws
from graphsim.traffic.lengths import Length, Sample, draw_lengths
from graphsim.traffic.parts import Closed, Open, Parts
from graphsim.traffic.popularity import Adapters
from graphsim.traffic.sessions import Chats, Sessions, chats_of, grown, prefixes_of
from graphsim.traffic.table import Floats, Ints, RequestTable, request_table


def drawn_table(traffic: Parts, source: Open | Closed) -> RequestTable:
    """The request table of a traffic that is not read from a file.

    source: arrivals of an open or closed loop
    """
    seed, sessions = traffic.seed, traffic.sessions or Sessions()
    if traffic.sessions is None:
        starts, adapter = _starts(traffic, source, None, 1.0)
        turns = np.ones(len(starts), dtype=np.int64)
    else:
        turns = sessions.turns_of(source.count, Draws(seed, "turns"))
        starts, adapter = _starts(traffic, source, len(turns), len(turns) / source.count)
    chats = chats_of(sessions, turns, Draws(seed, "prefixes"))
    group = draw_classes(traffic.classes, len(turns), Draws(seed, "classes"))[chats.conversation]
    messages, answers = _lengths(traffic, sessions, chats, group)
    prompts = grown(sessions, chats, messages, answers)
    follows = chats.turn > 0
    think = np.where(follows, sessions.pauses(len(follows), Draws(seed, "think")), 0.0)
    return request_table(
        np.where(follows, np.nan, starts[chats.conversation]), prompts, answers, adapter=adapter[chats.conversation],
        priority=priority_of(traffic.classes, group), group=group, after=chats.after, think_s=think,
        prefixes=prefixes_of(sessions, chats, prompts),
    )  # fmt: skip


def _starts(traffic: Parts, source: Open | Closed, count: int | None, share: float) -> tuple[Floats, Ints]:
    """Start time and adapter of each request or conversation.

    count: number of conversations; None if there are only single requests
    share: fraction of the rate that applies
    """
    adapters, draws, rescales = traffic.pool, Draws(traffic.seed, "arrivals"), traffic.client.rescales
    if isinstance(source, Closed):
        starts = np.full(count or source.count, np.nan)
        starts[: source.concurrency] = 0.0
    else:
        wanted = source.requests or (source.count if rescales else None)
        rates = _rates(source, adapters) if count is None else None
        if rates is not None:
            return own_processes(rates, wanted, source.seconds, draws, burstiness=source.burstiness, rescales=rescales)
        starts = arrival_times(
            source.rate, wanted if count is None else count, draws, seconds=source.seconds,
            burstiness=source.burstiness, rescales=rescales, share=share,
        )  # fmt: skip
    return starts, adapters.drawn(starts, Draws(traffic.seed, "adapters"), Draws(traffic.seed, "drift"))


def _rates(source: Open, adapters: Adapters) -> Floats | None:
    """The rate of each adapter if adapters need separate processes; None for Poisson arrivals or without such rates."""
    rates = adapters.rates
    if rates is None or source.burstiness == 1.0 or adapters.base_share:
        return None
    if not isinstance(source.rate, float) or source.rate == inf:
        return None
    return np.asarray(rates * (source.rate / rates.sum()))


def _lengths(traffic: Parts, sessions: Sessions, chats: Chats, group: Ints) -> tuple[Ints, Ints]:
    """Tokens of each message and each answer, by class; each repeated prompt always has the same lengths."""
    repeated = sessions.prompts_per_group is not None
    count = sessions.texts if repeated else len(chats.turn)
    where = chats.text if repeated else slice(None)
    inputs, outputs = Draws(traffic.seed, "inputs"), Draws(traffic.seed, "outputs")
    messages, answers = (
        column[where] for column in _pair(traffic.input_tokens, traffic.output_tokens, count, inputs, outputs)
    )
    for number, each in enumerate(traffic.classes):
        asked, answered = _own(traffic, each)
        if (asked, answered) != (traffic.input_tokens, traffic.output_tokens):
            own = (column[where] for column in _pair(asked, answered, count, inputs, outputs))
            here = group == number
            messages, answers = (
                np.where(here, mine, others) for mine, others in zip(own, (messages, answers), strict=True)
            )
    return messages, answers


def _own(traffic: Parts, each: RequestClass) -> tuple[Length, Length | None]:
    """The lengths of a class, by default those of the traffic; the second is None if the first has pairs."""
    asked, answered = each.length("input_tokens"), each.length("output_tokens")
    if asked is None and answered is None:
        return traffic.input_tokens, traffic.output_tokens
    if asked is not None and isinstance(asked, Sample) and asked.pairs:
        return asked, None
    asked, answered = asked or traffic.input_tokens, answered or traffic.output_tokens
    if answered is None or (isinstance(asked, Sample) and asked.pairs):
        missing = "input_tokens" if each.input_tokens is None else "output_tokens"
        raise ConfigError(f"RequestClass '{each.name}': the traffic's lengths are pairs, so {missing} is needed, too")
    return asked, answered


def _pair(asked: Length, answered: Length | None, count: int, inputs: Draws, outputs: Draws) -> tuple[Ints, Ints]:
    found = draw_lengths("Traffic: input_tokens", asked, count, inputs)
    if answered is None:
        return found[:, 0], found[:, 1]
    return found, draw_lengths("Traffic: output_tokens", answered, count, outputs)
