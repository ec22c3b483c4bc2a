"""Times random reads of token arrays through numpy.memmap, the files given taking turns.

usage: memmap.py FILE...
"""

import sys
import time

import numpy

ROUNDS, SAMPLES, TOKENS = 7, 200_000, 1024

rates = {path: [] for path in sys.argv[1:]}
for seed in range(ROUNDS):
    for path, rate in rates.items():
        array = numpy.memmap(path, dtype=numpy.uint16, mode="r")
        starts = numpy.random.default_rng(seed).integers(0, len(array) - TOKENS, SAMPLES)
        started = time.monotonic()
        total = sum(int(array[start : start + TOKENS].sum()) for start in starts)
        rate.append(SAMPLES / (time.monotonic() - started))
for path, rate in rates.items():
    print(f"{path}: {sorted(rate)[ROUNDS // 2]:.0f} samples of {TOKENS} tokens a second")
