"""Reads an image folder through a mount with PyTorch, as a training script does, and checks it against the original.

usage: imagefolder.py make DIR          write a small image folder
       imagefolder.py read MOUNT DIR    read MOUNT with 2 workers, shuffled, and compare every pixel with DIR
"""

import os
import sys

import numpy
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

CLASSES, IMAGES, SIDE = 4, 25, 64


def make(folder):
    pixels = numpy.random.default_rng(0)
    for label in range(CLASSES):
        os.makedirs(f"{folder}/class{label}")
        for image in range(IMAGES):
            array = pixels.integers(0, 256, (SIDE, SIDE, 3), dtype=numpy.uint8)
            Image.fromarray(array).save(f"{folder}/class{label}/{image:03}.png")


def epoch(folder, shuffle):
    """Returns {path: (label, pixels)}."""
    data = ImageFolder(folder, transforms.PILToTensor())

    class Indexed(torch.utils.data.Dataset):
        def __len__(self):
            return len(data)

        def __getitem__(self, index):
            image, label = data[index]
            return index, image, label

    loader = torch.utils.data.DataLoader(Indexed(), batch_size=8, num_workers=2, shuffle=shuffle)
    found = {}
    for indices, images, labels in loader:
        for index, image, label in zip(indices.tolist(), images, labels.tolist()):
            path = os.path.relpath(data.samples[index][0], folder)
            found[path] = (label, image.numpy().tobytes())
    return found


def main():
    if sys.argv[1] == "make":
        make(sys.argv[2])
        return
    mounted, original = epoch(sys.argv[2], True), epoch(sys.argv[3], False)
    assert len(mounted) == CLASSES * IMAGES, len(mounted)
    assert mounted == original, "the mount differs from the original"
    assert epoch(sys.argv[2], True) == original, "the second epoch differs"
    print(f"{len(mounted)} images, two epochs, 2 workers: equal")


main()
