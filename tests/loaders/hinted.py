"""Reads a cold mount with a DataLoader whose sampler hints, and checks it against the original.

usage: hinted.py MOUNT DIR SOCKET

Each worker opens its first file when the node says that all hinted files are here: what is read after that was fetched
for the hints, or has to be fetched for the readers, which the caller can tell from the node's counters.
"""

import http.client
import json
import os
import socket
import sys
import threading
import time

import torch
from hinted_sampler import HintedSampler
from torch.utils.data import DataLoader, RandomSampler

MOUNT, ORIGINAL, BCAI = sys.argv[1:]


def cache():
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(BCAI)
    connection.request("GET", "/v1/cache")
    return json.load(connection.getresponse())


class Files(torch.utils.data.Dataset):
    def __init__(self, top):
        self.paths = sorted(os.path.join(dir, name) for dir, _, names in os.walk(top) for name in names)
        self.waited = False

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        deadline = time.monotonic() + 60
        while not self.waited:
            assert time.monotonic() < deadline, cache()
            self.waited = cache()["hints"]["fetched"] == len(self)
        with open(self.paths[index], "rb") as file:
            return index, file.read()


data = Files(MOUNT)
sampler = HintedSampler(RandomSampler(data), lambda index: data.paths[index], MOUNT, BCAI, ahead=1024)
loader = DataLoader(data, batch_size=8, sampler=sampler, num_workers=2, collate_fn=list)
found = {os.path.relpath(data.paths[index], MOUNT): content for batch in loader for index, content in batch}
for path, content in found.items():
    with open(os.path.join(ORIGINAL, path), "rb") as file:
        assert file.read() == content, path
assert len(found) == len(data), len(found)

# A sampler that cannot reach the node gives the same order.
mute = HintedSampler(range(10), lambda index: str(index), MOUNT, BCAI + ".gone", ahead=4)
assert list(mute) == list(range(10))

# Nor does one whose node answers nonsense fail.
with socket.socket(socket.AF_UNIX) as server:
    server.bind(BCAI + ".odd")
    server.listen()

    def answer():
        for _ in range(4):
            connection, _ = server.accept()
            connection.sendall(b"nonsense\r\n\r\n")
            connection.close()

    threading.Thread(target=answer, daemon=True).start()
    odd = HintedSampler(range(10), lambda index: str(index), MOUNT, BCAI + ".odd", ahead=4)
    assert list(odd) == list(range(10))
print(f"{len(found)} files equal, {sum(map(len, found.values()))} bytes")
