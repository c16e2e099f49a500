"""A training script with faults: `python faulty.py FAULT SEED`, where FAULT is none, crash, hang, diverge or forget."""

import random
import sys
import time

fault, seed = sys.argv[1], int(sys.argv[2])
if fault == "crash" and seed == 2:
    sys.exit("no such kernel")  # on one seed alone
if fault == "hang" and seed == 2:
    time.sleep(3600)
random.seed(0 if fault == "forget" else seed)  # a seed that is taken and forgotten
score = float("nan") if fault == "diverge" and seed == 2 else random.uniform(0.6, 0.9)
print(f"accuracy: {score}")
