"""What nbval is told of rounding: digits, not results."""

import nbformat.v4 as nb
import pytest
from nbval_rounding import alike, settled


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("slope -0.57 [-0.63, -0.51]", "slope -0.56 [-0.64, -0.51]"),
        ("energy 1869", "energy 1870"),
        ("  99.8 of 7", " 100.0 of 7"),
        ("gap 3.1e-14", "gap 8.e-16"),
        ("{'value': 0.563, 'high': 0.59}", "{'value': 0.563, 'high': 0.591}"),
        ("H = 0.50, depth-64", "H = 0.50, depth-64"),
    ],
)
def test_rounding_is_alike(new, old):
    assert alike(new, old)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("slope 0.57", "slope 0.54"),
        ("slope 0.57", "slope -0.57"),
        ("met 4 of 12", "met 5 of 12"),
        ("energy 4.24", "energy 8.21"),
        ("gap 3.1e-06", "gap 8.0e-06"),
        ("1.0 2.0", "1.0 2.0 3.0"),
        ("weights grow: True", "weights grow: False"),
        ("nan", "1.00"),
        ("depth-64", "depth-65"),
    ],
)
def test_a_result_is_not(new, old):
    assert not alike(new, old)


def test_outputs_are_settled_part_by_part():
    old = [nb.new_output("stream", name="stdout", text="a 0.57\n")]
    old += [nb.new_output("display_data", {"text/plain": "2.00", "x": "3"})]
    new = [nb.new_output("stream", name="stdout", text="a 0.58\n")]
    new += [nb.new_output("display_data", {"text/plain": "2.30", "x": "3"})]
    first, second = settled(new, old)
    assert first == old[0]
    assert second == new[1]
    assert settled(new[:1], old) == new[:1]
