"""Which command needs which, on schedules written by hand."""

from predecode.export.data_dependencies import Access, dependencies, through


def read(start, stop, buffer="scratch"):
    return Access(buffer, start, stop, reads=True)


def write(start, stop, buffer="scratch"):
    return Access(buffer, start, stop, writes=True, overwrites=True)


def store(start, stop, buffer="cache"):
    """Writes a part of the range, the rest stays."""
    return Access(buffer, start, stop, writes=True)


def test_a_chain_and_what_stands_beside_it():
    commands = [[write(0, 8)], [read(0, 8), write(8, 16)], [read(0, 8), write(16, 24)], [read(8, 24)]]
    assert dependencies(commands) == [(), (0,), (0,), (1, 2)]


def test_memory_used_again_makes_no_dependency():
    commands = [[write(0, 8)], [read(0, 8)], [write(0, 8)], [read(0, 8)]]
    assert dependencies(commands) == [(), (0,), (), (2,)]


def test_each_byte_comes_from_its_last_writer():
    commands = [[write(0, 16)], [write(4, 8)], [read(0, 16)], [read(4, 8)], [read(8, 16)]]
    assert dependencies(commands)[2:] == [(0, 1), (1,), (0,)]


def test_a_part_of_a_cache_leaves_the_rest_to_earlier_writers():
    commands = [[store(0, 64)], [store(0, 64)], [read(0, 64, "cache")]]
    assert dependencies(commands) == [(), (), (0, 1)]
    whole = [[store(0, 64)], [write(0, 64, "cache")], [read(0, 64, "cache")]]
    assert dependencies(whole)[2] == (1,)


def test_neighbours_do_not_touch():
    assert dependencies([[write(0, 8)], [read(8, 16)]]) == [(), ()]
    assert dependencies([[write(0, 9)], [read(8, 16)]]) == [(), (0,)]
    assert dependencies([[write(0, 8, "other")], [read(0, 8)]]) == [(), ()]


def test_a_command_does_not_need_itself():
    assert dependencies([[read(0, 8), write(0, 8)]]) == [()]


def test_copies_are_passed_through():
    commands = [[write(0, 8)], [read(0, 8), write(8, 16)], [read(8, 16)], [read(0, 16)]]
    assert through(dependencies(commands), [0, 2, 3]) == [(), (0,), (0,)]
