import numpy as np
import pytest

from graphsim.cost.surfaces.fitting import Order, SurfaceSpec, fit_constants, fit_surface
from graphsim.cost.surfaces.surface import Surface
from graphsim.cost.surfaces.tables import Term
from graphsim.errors import ConfigError
from graphsim.symbolic.expr import Tape
from graphsim.symbolic.program import Program


def smooth_law(x, y):
    return 0.3 * np.sin(x / 2) + 0.05 * (x - 5) * (y - 3) / 4


@pytest.fixture(scope="module")
def points():
    random = np.random.default_rng(0)
    return {"x": random.uniform(0, 10, 3000), "y": random.uniform(0, 6, 3000)}


@pytest.fixture(scope="module")
def surface(points):
    layout = SurfaceSpec(knots={"x": np.arange(0.0, 10.1), "y": np.arange(0.0, 6.1)}, terms=[("x", "y")], smooth=0.01)
    return fit_surface(layout, points, smooth_law(points["x"], points["y"]))


def test_a_surface_reproduces_a_smooth_law_between_its_points(surface):
    random = np.random.default_rng(1)
    x, y = random.uniform(0, 10, 500), random.uniform(0, 6, 500)
    assert np.median(np.abs(surface({"x": x, "y": y}) - smooth_law(x, y))) < 0.01


def test_a_surface_shrugs_off_one_point_in_ten_gone_wild(points):
    layout = SurfaceSpec(knots={"x": np.arange(0.0, 10.1), "y": np.arange(0.0, 6.1)}, terms=[("x", "y")])
    target = smooth_law(points["x"], points["y"])
    wild = target + np.where(np.arange(target.size) % 10 == 0, 5.0, 0.0)
    found = fit_surface(layout, points, wild)(points)
    assert np.median(np.abs(found - target)) < 0.02


def test_beyond_its_knots_a_surface_is_constant(surface):
    assert surface({"x": 1e6, "y": 3.0}) == surface({"x": 10.0, "y": 3.0})
    assert surface({"x": -1e6, "y": 3.0}) == surface({"x": 0.0, "y": 3.0})


def test_knots_that_no_measurement_reaches_are_left_out():
    layout = SurfaceSpec(knots={"x": np.arange(0.0, 20.0)}, terms=[("x",)])
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
    surface, many = Surface(terms=tuple(tables)), {name: random.uniform(-5, 7, 512) for name in knots}
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


def test_a_surface_at_symbols_gives_with_few_tables_what_it_gives_with_all():
    random, tape = np.random.default_rng(4), Tape(literal=True)
    knots = {
        "x": np.arange(4.0),
        "y": np.array([0.0, 1.0, 5.0]),
        "z": np.arange(-3.0, 2.0),
        "x coarse": np.array([-1.0, 2.5]),
    }
    axes = [
        ("x",),
        ("x", "y"),
        ("z",),
        ("x", "z", "y"),
        ("z", "y"),
        ("x coarse", "z"),
        ("x coarse", "x"),
        ("y", "y fine"),
    ]
    knots["y fine"] = np.linspace(0.0, 6.0, 9)
    tables = [Term(axes=t, knots=tuple(knots[n] for n in t), values=random.normal(size=[len(knots[n]) for n in t]))
              for t in axes]  # fmt: skip
    surface = Surface(terms=tuple(tables))
    x, y, z = (tape.variable(name) for name in "xyz")
    program = Program([surface({"x": x, "y": y, "z": z, "x coarse": x, "y fine": 2.25})])
    for _ in range(20):
        at = dict(zip("xyz", random.uniform(-4.0, 6.0, 3).tolist(), strict=True))
        whole = surface(at | {"x coarse": at["x"], "y fine": 2.25})
        assert program(at)[0] == pytest.approx(whole, rel=1e-14, abs=1e-14)
        for names in ("xyz", "yzx", "zxy"):
            stages = Program([surface({"x": x, "y": y, "z": z, "x coarse": x, "y fine": 2.25})],
                             {name: tape.variable(name) for name in names})  # fmt: skip
            for often in range(4):
                first, others = [at[name] for name in names[:often]], [at[name] for name in names[often:]]
                assert stages.in_stages(often)(*others)(*first) == pytest.approx(whole, rel=1e-14, abs=1e-14)
    many = {"x": np.linspace(0.0, 3.0, 7), "y": 0.5, "z": 0.5}
    expected = surface({**many, "x coarse": many["x"], "y fine": 2.25})
    assert program(many)[0] == pytest.approx(expected, rel=1e-14, abs=1e-14)


def test_json_keeps_a_surface_to_a_thousandth(surface, points):
    again = Surface.from_json(surface.to_json())
    assert np.abs(again(points) - surface(points)).max() <= 5.001e-4
    assert again.to_json() == surface.to_json()


def test_values_that_do_not_fit_the_knots_are_refused(surface):
    data = surface.to_json()
    data["tables"][0]["thousandths"].pop()
    with pytest.raises(ConfigError, match="76 values, expected 77"):
        Surface.from_json(data)


def test_constants_of_a_law_are_recovered_from_noisy_points():
    random = np.random.default_rng(2)
    x = np.exp(random.uniform(0, 8, 800))
    target = np.log(2.0 * x + 30.0) + random.normal(0, 0.02, x.size)
    found = fit_constants(lambda c: c["a"] * x + c["b"], {"a": 1.0, "b": 10.0}, target, hold=1e-4)
    assert found["a"] == pytest.approx(2.0, rel=0.02) and found["b"] == pytest.approx(30.0, rel=0.02)


def test_ordered_pairs_do_not_come_out_falling_where_the_data_falls(points):
    layout = SurfaceSpec(knots={"x": np.arange(0.0, 10.1), "y": [0.0, 6.0]}, terms=[("x", "y")], smooth=0.01)
    falling = -0.1 * points["x"]
    low = {"x": np.linspace(0, 9, 200), "y": np.full(200, 3.0)}
    high = {"x": low["x"] + 1.0, "y": low["y"]}
    order = Order(low=low, high=high, least=np.zeros(200), weight=1e4)
    free, bound = fit_surface(layout, points, falling), fit_surface(layout, points, falling, order=order)
    assert (free(high) - free(low)).max() < -0.05
    assert (bound(high) - bound(low)).min() > -0.02
