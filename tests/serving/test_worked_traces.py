"""Traces worked by hand, step by step, for each kind of scheduler.

A step of generation takes 10 s, one with prompts a second more for each of their new tokens; a load from disk 25 s. A
step has 8 tokens and 3 sequences; the cache has 7 blocks of 4 tokens. Tables below have a line a step: when it begins,
who generates (g) or computes so many tokens of a prompt (+n), how many blocks are free then, and when it ends. One
of N tokens takes a block in the step that begins with N - 1 of them in the cache where 4 divides N - 1.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.loop import run
from graphsim.serving.rules import AdapterRules, Rules
from graphsim.serving.run_log import RunLog
from graphsim.traffic.table import BASE, RequestTable, request_table


class Ticks:
    def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
        return 10.0, 0.0, 10**9

    def mixed(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        return 10.0 + prompt_tokens

    def load(self, adapter: int, from_disk: bool) -> float:
        return 25.0 if from_disk else 5.0


DOZEN = request_table(
    [0, 0, 0, 15, 15, 40, 40, 40, 100, 100, 100, 101],
    [6, 4, 9, 3, 5, 8, 2, 1, 12, 4, 4, 2],
    [3, 2, 2, 4, 1, 2, 2, 1, 3, 6, 6, 2],
)
RULES = Rules(kv_blocks=7, block_tokens=4, max_num_batched_tokens=8, max_num_seqs=3)


def assert_times(log: RunLog, first: list[float], finished: list[float]) -> None:
    assert log.first_token_s == pytest.approx(first)
    assert log.finished_s == pytest.approx(finished)


def test_vllm() -> None:
    """Running first, then the waiting, cut to the tokens left; blocks that lack cost the last of the running its own.

    begins  step                free   ends   and then
      0     0 +6, 1 +2            4     18    first token of 0
     18     0 g, 1 +2, 2 +5       2     35    of 1
     35     0 g, 1 g, 2 +4        0     49    of 2; 0 and 1 have all theirs; 3 places are taken until then
     49     2 g, 3 +3, 4 +4       2     66    2 ends, first of 3
     66     3 g, 4 +1, 5 +6       2     83    4 has its only token
     83     3 g, 5 +2, 6 +2       2     97    first of 5 and of 6; 7 finds no place
     97     3 g, 5 g, 6 g         1    107    all three end
    107     7 +1, 8 +7            4    125    7 ends
    125     8 +5, 9 +3            3    143    first of 8
    143     8 g, 9 +1, 10 +4      1    158    first of 9 and of 10
    158     8 g, 9 g              0    168    9 takes the last block and 10, which needs one too, gives up its own: it
                                              goes back to the head of the queue, and nobody is admitted; 8 ends
    168     9 g, 10 +1, 11 +2     2    181    4 of the 5 tokens of 10 are still in the cache; first of 11
    181     9 g, 10 g, 11 g       2    191    11 ends
    191     9 g, 10 g             3    201
    201     9 g, 10 g             2    211    9 ends
    211     10 g                  4    221    10 ends
    """
    log = run(DOZEN, RULES, Ticks())
    assert_times(
        log,
        [18, 35, 49, 66, 83, 97, 97, 125, 143, 158, 158, 181],
        [49, 49, 66, 107, 83, 107, 107, 125, 168, 211, 221, 191],
    )
    assert log.preemptions.tolist() == [0] * 10 + [1, 0]
    assert sum(row[2] for row in log.runs) == 16


def test_tensorrt_llm_by_max_utilization() -> None:
    """As above up to 168, where 10, without blocks of its own that stayed, computes its 5 tokens again.

    168     9 g, 10 +5, 11 +2     2    185    first of 11
    185     9 g, 10 g, 11 g       2    195    11 ends
    195     9 g, 10 g             3    205
    205     9 g, 10 g             2    215    9 ends
    215     10 g                  4    225    10 ends
    """
    log = run(DOZEN, replace(RULES, shortage="pause", prefix_cache=False), Ticks())
    assert_times(
        log,
        [18, 35, 49, 66, 83, 97, 97, 125, 143, 158, 158, 185],
        [49, 49, 66, 107, 83, 107, 107, 125, 168, 215, 225, 195],
    )
    assert log.preemptions.tolist() == [0] * 10 + [1, 0]


def test_tensorrt_llm_without_evictions() -> None:
    """Who is admitted finds blocks for all that it may ever have: 2, 2, 3, 2, 2, 3, 1, 1, 4, 3, 3 and 1 of the seven.

    As vLLM's up to 143, since 2 + 2 + 3, 3 + 2 + 2, 2 + 2 + 3, 2 + 3 + 1, 1 + 4 and 4 + 3 fit. Then:

    begins  step                promised  ends
    143     8 g, 9 +1            7         154    10 would need 3, and 11 waits behind it; first of 9
    154     8 g, 9 g             7         164    8 ends
    164     9 g, 10 +4, 11 +2    7         180    first of 10 and of 11
    180     9 g, 10 g, 11 g      7         190    11 ends
    190     9 g, 10 g (twice)    6         210    9 ends
    210     10 g (twice)         3         230    10 ends
    """
    log = run(DOZEN, replace(RULES, admission="no_evict", shortage="pause"), Ticks())
    assert_times(
        log,
        [18, 35, 49, 66, 83, 97, 97, 125, 143, 154, 180, 180],
        [49, 49, 66, 107, 83, 107, 107, 125, 164, 210, 230, 190],
    )
    assert not log.preemptions.any()


SGLANG = replace(
    RULES, order="prefill_first", admission="estimated", shortage="retract", new_token_ratio=0.5, ratio_decay=0.0,
    least_ratio=0.5,
)  # fmt: skip


def test_sglang() -> None:
    """Prompts alone, generation only where none can be admitted: prompt and answer must be fewer than the tokens left.

    Left are 4 for each free block, less half of what those that generate still get, less all of what new ones get.

    begins  step            free  ends   asked < left
      0     0 +6, 1 +2       4     18    4 + 2 < 20 - 3 for 1; first of 0
     18     1 +2, 2 +6       2     36    9 + 2 < 16 - 1 - 2 for 2; first of 1
     36     2 +3             1     49    first of 2; 3 places are taken
     49     0 g, 1 g, 2 g    0     59    1 and 2 end
     59     3 +3, 4 +5       2     77    3 + 4 < 20 - 0.5, 5 + 1 < 16 - 0.5 - 4; first of 3, 4 ends
     77     5 +8             2     95    8 + 2 < 16 - 0.5 - 1.5; first of 5; 3 places are taken
     95     0 g, 3 g, 5 g    1    105    0 and 5 end
    105     6 +2, 7 +1       4    118    2 + 2 < 24 - 1, 1 + 1 < 20 - 1 - 2; first of 6, 7 ends
    118     8 +8             3    136    12 + 3 < 20 - 1 - 0.5
    136     8 +4             2    150    first of 8; 3 places are taken
    150     3 g, 6 g, 8 g    0    160    6 ends
    160     3 g, 8 g         1    170    4 + 6 > 4 - 0.5 - 0.5 for 9; 3 and 8 end
    170     9 +4, 10 +4      5    188    4 + 6 < 24 - 6 for 10; first of both
    188     11 +2            4    200    2 + 2 < 20 - 2.5 - 2.5; first of 11
    200     9, 10, 11 g      2    210    11 ends
    210     9 g, 10 g, four times: 220, 230, 240, 250, when both end
    """
    log = run(DOZEN, SGLANG, Ticks())
    assert_times(
        log,
        [18, 36, 49, 77, 77, 95, 118, 118, 150, 188, 188, 200],
        [105, 59, 59, 170, 77, 105, 160, 118, 170, 250, 250, 210],
    )
    # 0 waited from 18 to 59 and from 59 to 105; 3 from 77 to 105 and from 105 to 160, 6 and 8 in it from 118 and 150
    assert sorted(log.gaps, reverse=True)[:4] == [(55, 1), (46, 1), (42, 1), (41, 1)]


def test_sglang_retracts_the_one_with_the_fewest_tokens_and_the_longest_prompt() -> None:
    """Four blocks, and nothing is set aside for what is to come: 0 has 6 tokens and gets 6, 1 has 2 and gets 5.

    begins  step      free  ends
      0     0 +6       2     16    2 + 5 < 8 - 6 doesn't hold for 1; first of 0
     16     1 +2       1     28    2 + 5 < 8; first of 1
     28     both g     1     38
     38     both g     1     48
     48     1 g        2     58    both need a block, one is free; with 3 tokens each, 0 has the longer prompt
     58     1 g        2     68    9 + 3 < 8 - 1 doesn't hold for 0; 1 ends
     68     0 +8       2     86
     86     0 +1       1     97    its fourth token
     97     0 g twice        117   0 ends
    """
    table = request_table([0, 0], [6, 2], [6, 5])
    log = run(table, replace(SGLANG, kv_blocks=4, new_token_ratio=0.0, least_ratio=0.0), Ticks())
    assert_times(log, [16, 28], [117, 68])
    assert log.preemptions.tolist() == [1, 0]


ADAPTERS = request_table([0, 0, 0, 0], [4, 4, 2, 2], [3, 2, 2, 1], adapter=[0, 1, 0, BASE])


def adapters(table: RequestTable, *, skips: bool, skip_s: float = 0.0) -> RunLog:
    """One slot, and the host's memory holds one adapter, too."""
    rules = replace(RULES, adapters=AdapterRules(max_loras=1, max_cpu_loras=1, skips=skips, skip_s=skip_s))
    return run(table, rules, Ticks(), store=AdapterStore(rules.adapters, Ticks().load))


def test_an_adapter_without_a_slot_is_passed_over() -> None:
    """0: load of adapter 0, then 0 +4, 2 +2, 3 +2 until 25 + 18 = 43; g until 53 (2 ends) and 63 (0 ends).

    63: load of adapter 1, then 1 +4 until 63 + 25 + 14 = 102; g until 112.
    """
    log = adapters(ADAPTERS, skips=True)
    assert_times(log, [43, 102, 43, 43], [63, 112, 53, 43])
    assert log.loads == [(0, 25, 0, 1), (63, 25, 1, 1)]
    assert log.load_stall_s.tolist() == [25, 25, 25, 0]


def test_whom_the_scheduler_passes_over_takes_it_time_in_each_step() -> None:
    """A quarter of a second in each of two steps, until 63.5; the first is full before the end of the queue is seen.

    Then the load of adapter 1, and its own steps.
    """
    log = adapters(ADAPTERS, skips=True, skip_s=0.25)
    assert_times(log, [43, 102.5, 43, 43], [63.5, 112.5, 53.25, 43])


def test_where_none_is_passed_over_all_wait_behind_it() -> None:
    """0: load, 0 +4 until 39; g until 49 and 59. 59: load, 1 +4 until 98; g until 108.

    108: adapter 0 is loaded again, 2 +2 and 3 +2 until 108 + 25 + 14 = 147; g until 157.
    """
    log = adapters(ADAPTERS, skips=False)
    assert_times(log, [39, 98, 147, 147], [59, 108, 157, 147])
    assert [adapter for _, _, adapter, _ in log.loads] == [0, 1, 0]


@pytest.mark.parametrize(("ahead", "first"), [(False, 36), (True, 46)])
def test_a_newcomer_waits_for_one_step_more_where_steps_are_planned_ahead(ahead: bool, first: float) -> None:
    """0 +4 until 14, g until 24, in which 1 comes at 20: it joins the step at 24, or, if that is planned, at 34."""
    log = run(request_table([0, 20], [4, 2], [5, 1]), replace(RULES, async_scheduling=ahead), Ticks())
    assert log.first_token_s.tolist() == [14, first]


def test_prompts_wait_until_they_fill_a_step_or_steps_enough_have_passed() -> None:
    """0 +4 until 14; 1 has come and is held back for the 2 steps until 34, then joins: 34 + 12 = 46."""
    rules = replace(RULES, wait_steps=2, wait_share=0.5)
    log = run(request_table([0, 5], [4, 2], [9, 1]), rules, Ticks())
    assert log.first_token_s.tolist() == [14, 46]
    enough = run(request_table([0, 5], [4, 4], [9, 1]), rules, Ticks())  # 4 tokens are half of a step's 8
    assert enough.first_token_s.tolist() == [14, 28]


def test_a_look_every_third_step() -> None:
    """0 +4 until 14, looks there; g until 24, 34, 44, looks there and finds 1, which came at 20: 44 + 12 = 56."""
    log = run(request_table([0, 20], [4, 2], [9, 1]), replace(RULES, receive_steps=3), Ticks())
    assert log.first_token_s.tolist() == [14, 56]


def test_admissions_in_every_fourth_step() -> None:
    """The engine's steps are counted from 0: 0 +4 is the first, g until 24, 34 and 44 the next three; 1 joins then."""
    log = run(request_table([0, 1], [4, 2], [9, 1]), replace(RULES, prefill_interval=4), Ticks())
    assert log.first_token_s.tolist() == [14, 56]
