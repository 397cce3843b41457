"""Reads the weights in a PyTorch file of the format before 1.6, without PyTorch.

Such a file is a row of pickles (magic number, protocol, system information, the state dict, the keys of its storages)
followed by the storages themselves: a count of elements and their bytes, in the order of the keys. A pickle can build
any object; this reader builds tensors and ordered dictionaries and refuses everything else.
"""

import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGE_TYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "u1",
}


@dataclass
class Storage:
    """A run of elements of one type, whose bytes stand after the pickles."""

    dtype: np.dtype
    count: int
    elements: np.ndarray | None = None


@dataclass
class Tensor:
    """A view of a storage, as the state dict describes it before the storages are read."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple

    def array(self):
        size = self.storage.dtype.itemsize
        start = self.storage.elements[self.offset :]
        last = sum((extent - 1) * stride for extent, stride in zip(self.shape, self.strides))
        if last >= len(start) or 0 in self.shape:
            raise ValueError(f"a tensor of shape {self.shape} reaches past its storage of {self.storage.count}")
        strides = [stride * size for stride in self.strides]
        return np.lib.stride_tricks.as_strided(start, self.shape, strides).copy()


@dataclass
class StorageType:
    dtype: np.dtype


class Reader(pickle.Unpickler):
    def __init__(self, file):
        super().__init__(file)
        self.storages = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: Tensor(storage, offset, tuple(shape), tuple(strides))
        if module == "torch" and name in STORAGE_TYPES:
            return StorageType(np.dtype(STORAGE_TYPES[name]))
        raise pickle.UnpicklingError(f"weights do not need `{module}.{name}`")

    def persistent_load(self, identifier):
        kind, storage_type, key, _device, count, view = identifier
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"unknown reference `{kind}`")
        return self.storages.setdefault(key, Storage(storage_type.dtype, count))


def load(path):
    """The state dict in the file: names to arrays, in their order."""
    with open(path, "rb") as file:
        if Reader(file).load() != MAGIC or Reader(file).load() != PROTOCOL:
            raise ValueError(f"`{path}` is not a PyTorch file of the format before 1.6")
        Reader(file).load()  # The writer's system information: byte order and sizes of C types.
        reader = Reader(file)
        state = reader.load()
        for key in Reader(file).load():
            storage = reader.storages[key]
            (count,) = struct.unpack("<q", file.read(8))
            if count != storage.count:
                raise ValueError(f"storage `{key}` holds {count} elements, not {storage.count}")
            storage.elements = np.frombuffer(file.read(count * storage.dtype.itemsize), storage.dtype)
        return OrderedDict((name, tensor.array()) for name, tensor in state.items())
