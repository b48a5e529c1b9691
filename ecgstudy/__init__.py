"""ecgstudy: what an electrocardiogram gives away about its owner."""

import os

# Threads that spin while they wait make a training run ten times slower where another job shares the cores.
# OpenMP reads this when torch or scikit-learn is first imported, so it stands before everything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
