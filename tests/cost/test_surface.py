import numpy as np
import pytest

from graphsim.cost.fitting import Layout, Order, fit_constants, fit_surface
from graphsim.cost.packed import MOST_POINTS
from graphsim.cost.surface import Recalling, Surface
from graphsim.cost.tables import Term
from graphsim.errors import ConfigError


def smooth_law(x, y):
    return 0.3 * np.sin(x / 2) + 0.05 * (x - 5) * (y - 3) / 4


@pytest.fixture(scope="module")
def points():
    random = np.random.default_rng(0)
    return {"x": random.uniform(0, 10, 3000), "y": random.uniform(0, 6, 3000)}


@pytest.fixture(scope="module")
def surface(points):
    layout = Layout(knots={"x": np.arange(0.0, 10.1), "y": np.arange(0.0, 6.1)}, terms=[("x", "y")], smooth=0.01)
    return fit_surface(layout, points, smooth_law(points["x"], points["y"]))


def test_a_surface_reproduces_a_smooth_law_between_its_points(surface):
    random = np.random.default_rng(1)
    x, y = random.uniform(0, 10, 500), random.uniform(0, 6, 500)
    assert np.median(np.abs(surface({"x": x, "y": y}) - smooth_law(x, y))) < 0.01


def test_a_surface_shrugs_off_one_point_in_ten_gone_wild(points):
    layout = Layout(knots={"x": np.arange(0.0, 10.1), "y": np.arange(0.0, 6.1)}, terms=[("x", "y")])
    target = smooth_law(points["x"], points["y"])
    wild = target + np.where(np.arange(target.size) % 10 == 0, 5.0, 0.0)
    found = fit_surface(layout, points, wild)(points)
    assert np.median(np.abs(found - target)) < 0.02


def test_beyond_its_knots_a_surface_is_constant(surface):
    assert surface({"x": 1e6, "y": 3.0}) == surface({"x": 10.0, "y": 3.0})
    assert surface({"x": -1e6, "y": 3.0}) == surface({"x": 0.0, "y": 3.0})


def test_knots_that_no_measurement_reaches_are_left_out():
    layout = Layout(knots={"x": np.arange(0.0, 20.0)}, terms=[("x",)])
    x = np.linspace(4.2, 9.7, 300)
    found = fit_surface(layout, {"x": x}, 0.1 * x)
    assert found.terms[0].knots[0].tolist() == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    assert found({"x": 1e9}) == found({"x": 10.0}) < 1.1


def test_one_number_gives_what_the_array_gives(surface):
    x = np.linspace(-1, 11, 50)
    assert np.array_equal(surface({"x": x, "y": 2.5}), [surface({"x": float(v), "y": 2.5}) for v in x])


def test_few_points_and_many_are_looked_up_alike():
    random = np.random.default_rng(3)
    knots = {"x": np.arange(4.0), "y": np.array([0.0, 1.0, 5.0]), "z": np.arange(-3.0, 2.0)}
    terms = 3 * [("x",), ("y", "x"), ("z", "x", "y")]
    tables = [Term(axes=t, knots=tuple(knots[n] for n in t), values=random.normal(size=[len(knots[n]) for n in t]))
              for t in terms]  # fmt: skip
    surface, many = Surface(terms=tuple(tables)), {name: random.uniform(-5, 7, 2 * MOST_POINTS) for name in knots}
    few = {"x": many["x"][:5, None], "y": many["y"][:7], "z": 0.25}
    whole = {name: np.broadcast_to(values, (5, 7)) for name, values in few.items()}
    assert surface(few) == pytest.approx(
        np.vectorize(lambda x, y, z: surface({"x": x, "y": y, "z": z}))(*whole.values())
    )
    for size in (1, 2, 9):
        parts = [surface({name: x[i : i + size] for name, x in many.items()}) for i in range(0, 90, size)]
        assert np.array_equal(surface(many)[:90], np.concatenate(parts)), size
    for fixed in ({"x": 1.3}, {"y": 0.4}, {"x": -2.0, "z": 0.25}, {"y": 3.0, "z": -2.7}):
        found = surface(many | fixed)
        points = zip(*np.broadcast_arrays(*(many | fixed).values()), strict=True)
        assert np.array_equal(found, [surface(dict(zip(knots, point, strict=True))) for point in points])


def test_tables_kept_at_seldom_new_coordinates_give_what_whole_ones_give():
    random = np.random.default_rng(4)
    knots = {"x": np.arange(4.0), "y": np.array([0.0, 1.0, 5.0]), "z": np.arange(-3.0, 2.0)}
    tables = [Term(axes=t, knots=tuple(knots[n] for n in t), values=random.normal(size=[len(knots[n]) for n in t]))
              for t in [("x",), ("x", "y"), ("z",), ("x", "z", "y"), ("z", "y")]]  # fmt: skip
    surface = Surface(terms=tuple(tables))
    kept = Recalling(surface, ("y", "z"))
    for _ in range(5):
        for y, z in ((0.3, -2.2), (9.0, 0.0)):
            x = float(random.uniform(-1.0, 4.0))
            place = [{"x": x, "y": y, "z": z}[name] for name in surface.names]
            assert kept(*place) == surface.at(*place)
    many = [np.linspace(0.0, 3.0, 7) if name == "x" else 0.5 for name in surface.names]
    assert np.array_equal(kept(*many), surface.at(*many))


def test_json_keeps_a_surface_to_a_thousandth(surface, points):
    again = Surface.from_json(surface.to_json())
    assert np.abs(again(points) - surface(points)).max() <= 5.001e-4
    assert again.to_json() == surface.to_json()


def test_values_that_do_not_fit_the_knots_are_refused(surface):
    data = surface.to_json()
    data[0]["thousandths"] = data[0]["thousandths"][:-1]
    with pytest.raises(ConfigError, match="76 values, expected 77"):
        Surface.from_json(data)


def test_constants_of_a_law_are_recovered_from_noisy_points():
    random = np.random.default_rng(2)
    x = np.exp(random.uniform(0, 8, 800))
    target = np.log(2.0 * x + 30.0) + random.normal(0, 0.02, x.size)
    found = fit_constants(lambda c: c["a"] * x + c["b"], {"a": 1.0, "b": 10.0}, target, hold=1e-4)
    assert found["a"] == pytest.approx(2.0, rel=0.02) and found["b"] == pytest.approx(30.0, rel=0.02)


def test_ordered_pairs_do_not_come_out_falling_where_the_data_falls(points):
    layout = Layout(knots={"x": np.arange(0.0, 10.1), "y": [0.0, 6.0]}, terms=[("x", "y")], smooth=0.01)
    falling = -0.1 * points["x"]
    low = {"x": np.linspace(0, 9, 200), "y": np.full(200, 3.0)}
    high = {"x": low["x"] + 1.0, "y": low["y"]}
    order = Order(low=low, high=high, least=np.zeros(200), weight=1e4)
    free, bound = fit_surface(layout, points, falling), fit_surface(layout, points, falling, order=order)
    assert (free(high) - free(low)).max() < -0.05
    assert (bound(high) - bound(low)).min() > -0.02
