#!/usr/bin/env python3
"""Folds the rows of a pond's Delta table into its tree, with other people's readers only.

    fold.py TABLE VERSION...

For each version prints one JSON line a path: version, path and, as `stat` would show them, mode, uid, gid,
nlink, size, rdev, mtime, ctime and inode; content is the BLAKE3 of a file's bytes or a symlink's target. Bytes that need
not be text (paths, targets, attributes) are hexadecimal. Fails if a digest is wrong or the rows make no tree.

It shares nothing with pond's own code: the table's description in the design is all it knows.
"""

import json
import stat
import sys

import pyarrow as pa
from blake3 import blake3
from deltalake import DeltaTable

KINDS = {
    "file": stat.S_IFREG, "dynamic": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "char_device": stat.S_IFCHR, "block_device": stat.S_IFBLK,
}
ROOT = "0000000000000001"


def rows(table, version):
    """All rows of a version, in the one order of everything."""
    delta = DeltaTable(table, version=version)
    found = delta.to_pyarrow_table().to_pylist()
    found.sort(key=lambda row: (row["lsn"], row["seq"]))
    numbers = [(row["lsn"], row["seq"]) for row in found]
    assert len(numbers) == len(set(numbers)), "two rows have the same (lsn, seq)"
    return found


def fold(found):
    """Latest attributes, entries and bytes of each node."""
    nodes, entries, contents = {}, {}, {}
    for row in found:
        node, kind = row["node_id"], row["record"]
        if kind == "node":
            nodes[node] = row
        elif kind == "entries":
            names = entries.setdefault(node, {})
            for change in pa.ipc.open_stream(row["content"]).read_all().to_pylist():
                if change["op"] == "reset":
                    names.clear()
                elif change["op"] == "insert":
                    names[change["name"]] = change
                elif change["op"] == "remove":
                    # Below the floor a removal may be left of a name whose making is not; a later reset hides both.
                    names.pop(change["name"], None)
                else:
                    raise ValueError(f"unknown op {change['op']}")
        elif kind == "extent":
            data = row["content"]
            assert len(data) == row["length"], f"extent of {node}: {len(data)} bytes, says {row['length']}"
            assert blake3(data).digest() == row["checksum"], f"extent of {node} at {row['offset']}: wrong digest"
            write(contents.setdefault(node, bytearray()), row["offset"], data)
        elif kind == "cut":
            content = contents.setdefault(node, bytearray())
            if row["length"] is None:
                del content[row["offset"]:]
            else:
                end = min(row["offset"] + row["length"], len(content))
                if end > row["offset"]:
                    content[row["offset"]:end] = bytes(end - row["offset"])
        else:
            raise ValueError(f"unknown record {kind}")
    return nodes, entries, contents


def write(content, offset, data):
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset:offset + len(data)] = data


def device(number):
    """The kernel's 32-bit device number as `stat` shows it (Linux, new_decode_dev and glibc's makedev)."""
    major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
    return (minor & 0xFF) | ((major & 0xFFF) << 8) | ((minor & ~0xFF) << 12)


def describe(row, content):
    kind = row["file_type"]
    if kind == "file":
        size = row["size"]
        assert len(content) <= size, f"{row['node_id']}: bytes beyond its size"
        digest = blake3(bytes(content)).update(bytes(size - len(content))).hexdigest().encode().hex()
    elif kind == "symlink":
        digest, size = row["content"].hex(), len(row["content"])
    elif kind == "dynamic":
        digest, size = blake3(row["content"]).hexdigest().encode().hex(), len(row["content"])
    else:
        digest, size = "", 0
    return {
        "mode": KINDS[kind] | row["mode"], "uid": row["uid"], "gid": row["gid"], "nlink": row["nlink"],
        "size": size, "rdev": device(row["rdev"]) if kind in ("char_device", "block_device") else 0,
        "mtime": row["mtime"], "ctime": row["ctime"], "inode": int(row["node_id"], 16), "content": digest,
        "xattrs": {name.hex(): value.hex() for name, value in row["xattrs"] or []},
    }


def paths(nodes, entries, contents):
    """Every path, depth first. Each node must be there, of the kind its entry says, and have its links."""
    links = {}
    queue = [(b"", ROOT)]
    while queue:
        path, node = queue.pop()
        row = nodes[node]
        assert row["nlink"] > 0, f"{path} names a node that has ended"
        yield path, describe(row, contents.get(node, b""))
        if row["file_type"] != "directory":
            links[node] = links.get(node, 0) + 1
            continue
        for name, entry in entries.get(node, {}).items():
            child = entry["child_node_id"]
            assert nodes[child]["file_type"] == entry["file_type"], f"{path}/{name}: kinds differ"
            queue.append((path + b"/" + name if path else name, child))
    for node, names in links.items():
        assert nodes[node]["nlink"] == names, f"node {node} has {names} names, says {nodes[node]['nlink']}"


def main():
    table = sys.argv[1]
    for version in map(int, sys.argv[2:]):
        for path, node in paths(*fold(rows(table, version))):
            print(json.dumps({"version": version, "path": path.hex(), **node}))


if __name__ == "__main__":
    main()
