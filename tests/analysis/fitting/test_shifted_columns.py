import numpy as np
import pytest

import analysis


@pytest.mark.parametrize("shift", ["1", "1e8", "1e9", "1e10"])
def test_a_column_beside_a_constant_is_searched_as_well_as_a_plain_one(shift):
    """Dividing D by its mean does not centre ln(D + 1e9): the search once began at a flattened exponent and ended degenerate."""
    rng = np.random.default_rng(0)
    n, d = np.exp(rng.uniform(np.log(1e8), np.log(1e10), 80)), np.exp(rng.uniform(np.log(1e9), np.log(3e11), 80))
    loss = 1.7 + 400 * n**-0.34 + 2000 * (d + float(shift)) ** -0.36
    law = analysis.Law("shifted", {"E": "1", "A": "N**-alpha", "B": f"(D + {shift})**-beta"},
                       ranges={"alpha": (0.02, 3), "beta": (0.02, 3)})  # fmt: skip
    found = analysis.fit(law, {"N": n, "D": d, "loss": loss}, objective="squared", draws=0)
    assert found.status == "ok"
    assert [found.params[name] for name in ("E", "alpha", "beta")] == pytest.approx([1.7, 0.34, 0.36], rel=1e-6)
