"""Tells bcai which files a DataLoader reads next, so that they are here before it opens them.

    sampler = HintedSampler(RandomSampler(data), lambda i: data.samples[i][0], "/mnt/photos", SOCKET)
    DataLoader(data, batch_size=32, sampler=sampler, num_workers=4)

SOCKET is bcai's `run/api.sock`. Hints only ever help: when they cannot be posted, reading goes on without them.
"""

import collections
import http.client
import itertools
import json
import os
import socket

import torch.utils.data


def text(path):
    """A path as the API writes it: a backslash is doubled, and bytes that are not UTF-8 are `\\xNN`."""
    return os.fsencode(path).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


class HintedSampler(torch.utils.data.Sampler):
    def __init__(self, sampler, path_of, mount, bcai, ahead=256):
        self.sampler, self.path_of, self.mount, self.bcai, self.ahead = sampler, path_of, mount, bcai, ahead

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        order, window = iter(self.sampler), collections.deque()
        while True:
            # A newer hint takes the place of the older, so each has all that is still to be read.
            if len(window) <= self.ahead // 2:
                new = list(itertools.islice(order, self.ahead - len(window)))
                window.extend(new)
                if new:
                    self.post([self.path_of(index) for index in window])
            if not window:
                return
            yield window.popleft()

    def post(self, paths):
        body = json.dumps({"dir": self.mount, "client": f"sampler-{os.getpid()}-{id(self)}", "paths": list(map(text, paths))})
        connection = http.client.HTTPConnection("localhost", timeout=5)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(5)
            connection.sock.connect(self.bcai)
            connection.request("POST", "/v1/hints", body, {"Content-Type": "application/json"})
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
