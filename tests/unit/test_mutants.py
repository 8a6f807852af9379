"""The mistakes that mutation testing makes on purpose."""

from tests.mutation import lua_mutants, python_mutants

PYTHON = '''"""A module."""
LIMIT = 4_000

def take(ids: list[int], last: int) -> int:
    """Not changed."""
    if ids and ids[0] > last:
        return last + 1
    return LIMIT
'''

LUA = """-- A script; if this == changed
if id < 5 then
    redis.call('HSET', key, 'seq', seq, 'feeder', feeder)
end
"""


def test_a_python_module_is_changed_in_every_place_that_does_something() -> None:
    mutants = python_mutants.mutants(PYTHON)

    assert [mutant.name for mutant in mutants] == [
        "module: LIMIT = 4000  ->  LIMIT = 8000",
        "module: LIMIT = 4000  ->  LIMIT = 2000",
        "module: LIMIT = 4000  ->  pass",
        "take: if ids and ids[0] > last  ->  if ids or ids[0] > last",
        "take: if ids and ids[0] > last  ->  if ids[0] > last",
        "take: if ids and ids[0] > last  ->  if ids",
        "take: if ids and ids[0] > last  ->  if ids and ids[0] >= last",
        "take: if ids and ids[0] > last  ->  if ids and ids[0] < last",
        "take: if ids and ids[0] > last  ->  if ids and ids[1] > last",
        "take: if ids and ids[0] > last  ->  if True",
        "take: if ids and ids[0] > last  ->  if False",
        "take: return last + 1  ->  return last - 1",
        "take: return last + 1  ->  return last + 2",
        "take: return last + 1  ->  return last + 0",
        "take: return last + 1  ->  pass",
        "take: return LIMIT  ->  pass",
    ]
    assert len({mutant.text for mutant in mutants}) == len(mutants)


def test_a_script_is_changed_in_every_place_that_does_something() -> None:
    assert [mutant.name.partition("  ->  ")[2] for mutant in lua_mutants.mutants(LUA)] == [
        "if id <= 5 then",
        "if id >= 5 then",
        "if id < 6 then",
        "if id < 4 then",
        "if true then",
        "if false then",
        "redis.call('HSETX', key, 'seq', seq, 'feeder', feeder)",
        "redis.call('HSET', key, 'seqX', seq, 'feeder', feeder)",
        "redis.call('HSET', key, 'seq', seq, 'feederX', feeder)",
        "redis.call('HSET', key, 'feeder', feeder)",
        "redis.call('HSET', key, 'seq', seq)",
        "nothing",
    ]
