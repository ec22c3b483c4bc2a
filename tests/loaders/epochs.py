"""Times epochs of a shuffled DataLoader with two workers over the files below a directory.

usage: epochs.py DIR [EPOCHS]

Files are opened and read as a loader does it, with `open(path, "rb").read()`; nothing is decoded.
"""

import os
import sys
import time

import torch
from torch.utils.data import DataLoader


class Files(torch.utils.data.Dataset):
    def __init__(self, top):
        self.paths = sorted(os.path.join(dir, name) for dir, _, names in os.walk(top) for name in names)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with open(self.paths[index], "rb") as file:
            return len(file.read())


data = Files(sys.argv[1])
for epoch in range(int(sys.argv[2]) if len(sys.argv) > 2 else 1):
    torch.manual_seed(epoch)
    started = time.monotonic()
    read = sum(int(batch.sum()) for batch in DataLoader(data, batch_size=64, shuffle=True, num_workers=2))
    seconds = time.monotonic() - started
    print(f"epoch {epoch + 1}: {seconds:.2f} s, {len(data) / seconds:.0f} files/s, {read / seconds / 2**20:.0f} MiB/s", flush=True)
