"""Made-up runs whose fate is known, for the tests of a diagnosis."""

from collections.abc import Mapping

import numpy as np
from made_runs import HEAD, Run

TEXT = HEAD + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 5\nseeds: 1..4\n"
FINE = Run(300, gradients=(1.0, 1.0))
GONE = Run(200, loss=0.69, gradients=(1.0, 1e-4), update=0.3)
SMALL = Run(200, loss=0.1, gradients=(1.0, 1.0))  # fits, and does not generalise
RUNS: Mapping[int, list[Run | None]] = {
    0: [FINE, GONE, GONE, FINE],  # lr 1e-5 without correction
    1: [FINE, FINE, FINE, Run(303, gradients=(1.0, 1.0))],
    2: [GONE, GONE, Run(diverged=True, gradients=(1.0, np.nan)), SMALL],
    3: [FINE, FINE, None, Run(crashed="no")],
}
