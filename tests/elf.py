"""What a shared library for Linux or macOS asks of the machine, read without any tool."""

from __future__ import annotations

import re
import struct

# Section types of the ELF specification, and GNU's for the versions that are needed.
DYNAMIC, VERSIONS_NEEDED = 6, 0x6FFFFFFE
NEEDED, RPATH, RUNPATH = 1, 15, 29
MACHINES = {62: "x86_64", 183: "aarch64"}


class Elf:
    """A 64-bit ELF file: `machine`, the names it needs, where it looks, its symbol versions."""

    def __init__(self, data: bytes):
        assert data[:6] == b"\x7fELF\x02\x01"
        self.data = data
        self.machine = MACHINES[struct.unpack_from("<H", data, 18)[0]]
        (start,) = struct.unpack_from("<Q", data, 40)
        size, count = struct.unpack_from("<HH", data, 58)
        # Type, offset, size, link to the string table.
        rows = [struct.unpack_from("<4xI16xQQI", data, start + i * size) for i in range(count)]
        self.needed, self.paths, self.versions = [], [], set()
        for kind, offset, length, link in rows:
            if kind == DYNAMIC:
                for tag, value in struct.iter_unpack("<QQ", data[offset : offset + length]):
                    if tag == NEEDED:
                        self.needed.append(self._text(rows[link][1] + value))
                    elif tag in (RPATH, RUNPATH):
                        self.paths += self._text(rows[link][1] + value).split(":")
            elif kind == VERSIONS_NEEDED:
                self._read_versions(offset, rows[link][1])

    def _text(self, at: int) -> str:
        return self.data[at : self.data.index(b"\0", at)].decode()

    def _read_versions(self, at: int, strings: int) -> None:
        while True:
            count, _, first, following = struct.unpack_from("<2xHIII", self.data, at)
            entry = at + first
            for _ in range(count):
                name, step = struct.unpack_from("<8xII", self.data, entry)
                self.versions.add(self._text(strings + name))
                entry += step
            if not following:
                return
            at += following

    def glibc(self) -> tuple[int, ...]:
        """The newest glibc that a symbol asks for."""
        found = [v[6:] for v in self.versions if re.fullmatch(r"GLIBC_[\d.]+", v)]
        return max((tuple(map(int, v.split("."))) for v in found), default=())


def macho_libraries(data: bytes) -> list[str]:
    """What an arm64 Mach-O file loads."""
    magic, machine = struct.unpack_from("<II", data)
    assert (magic, machine) == (0xFEEDFACF, 0x0100000C), "not Mach-O for arm64"
    names, at = [], 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        if command in (0xC, 0x80000018):  # LC_LOAD_DYLIB, LC_LOAD_WEAK_DYLIB
            (name,) = struct.unpack_from("<I", data, at + 8)
            names.append(data[at + name : at + size].split(b"\0")[0].decode())
        at += size
    return names
