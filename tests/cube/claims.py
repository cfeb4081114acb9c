"""A TIFF of a few hundred bytes that claims any number of cells."""

import struct

SHORT, LONG, DOUBLE = 3, 4, 12
SIZES = {SHORT: "<H2x", LONG: "<I"}
KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 25833)


def tiff_of_claims(path, size):
    """Write the header of a square raster of float32, of which no cell is there."""
    head = {256: (LONG, size), 257: (LONG, size), 258: (SHORT, 32), 259: (SHORT, 1)}
    head |= {262: (SHORT, 1), 273: (LONG, 8), 277: (SHORT, 1), 278: (LONG, size)}
    head |= {279: (LONG, 4), 339: (SHORT, 3)}
    behind = {
        33550: (DOUBLE, struct.pack("<3d", 1, 1, 0), 3),
        33922: (DOUBLE, struct.pack("<6d", 0, 0, 0, 0, size, 0), 6),
        34735: (SHORT, struct.pack("<16H", *KEYS), 16),
    }
    place = 8 + 2 + 12 * (len(head) + len(behind)) + 4
    entries, rest = b"", b""
    for tag, (kind, value) in head.items():
        entries += struct.pack("<HHI", tag, kind, 1) + struct.pack(SIZES[kind], value)
    for tag, (kind, content, count) in behind.items():
        entries += struct.pack("<HHII", tag, kind, count, place + len(rest))
        rest += content
    count = struct.pack("<H", len(head) + len(behind))
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + count + entries + bytes(4) + rest)
    return path
