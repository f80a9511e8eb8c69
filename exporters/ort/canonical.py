"""Makes .ort bytes the same each time: onnxruntime writes one table in the order of a randomly seeded hash map.

The file is a flatbuffer: a root table, the kernel type resolver (the unordered one), then the model, whose offsets
are relative. So root and resolver are written anew, sorted, in front of the model's bytes as they are.
"""

from __future__ import annotations

import struct

import flatbuffers

from ecd_deploy.compat.onnxruntime import (
    ArgTypeAndIndex,
    KernelTypeStrArgsEntry,
    KernelTypeStrResolver,
    OpIdKernelTypeStrArgsEntry,
    ort_session,
    table_position,
    table_slot,
)

_IDENTIFIER = b"ORTM"
# Slots of the root table: the version's text, the model, one that is no longer used, the resolver.
_VERSION, _MODEL, _RESOLVER = (4 + 2 * slot for slot in (0, 1, 3))
_VTABLE = struct.Struct("<6H")
_ALIGNMENT = 64

_Arguments = list[tuple[int, int]]
_Resolver = list[tuple[bytes, list[tuple[bytes, _Arguments]]]]


def canonical(data: bytes) -> bytes:
    """Rewrite a just written .ort file with its resolver sorted; what it means stays the same."""
    session = ort_session(data)
    root = table_position(session)
    version = _target(data, root, table_slot(session, _VERSION))
    model = _target(data, root, table_slot(session, _MODEL))
    # A flatbuffer is written from its end: everything of the model lies at or behind its own table.
    tail = min(model, model - struct.unpack_from("<i", data, model)[0])
    resolver = _written(_read(session.KernelTypeStrResolver()))
    head = 8 + _VTABLE.size + 16
    body = len(data) - tail
    size = -(-(head + len(resolver) + body) // _ALIGNMENT) * _ALIGNMENT
    start = size - body
    table = 8 + _VTABLE.size
    result = bytearray(start)
    result[0:8] = struct.pack("<I4s", table, _IDENTIFIER)
    result[8:table] = _VTABLE.pack(_VTABLE.size, 16, 4, 8, 0, 12)
    resolver_table = head + struct.unpack_from("<I", resolver)[0]
    targets = (start + version - tail, start + model - tail, resolver_table)
    offsets = (target - (table + 4 + 4 * index) for index, target in enumerate(targets))
    result[table:head] = struct.pack("<i3I", _VTABLE.size, *offsets)
    result[head : head + len(resolver)] = resolver
    return bytes(result) + data[tail:]


def _target(data: bytes, table: int, offset: int) -> int:
    position = table + offset
    found: int = struct.unpack_from("<I", data, position)[0]
    return position + found


def _read(resolver: KernelTypeStrResolver.KernelTypeStrResolver) -> _Resolver:
    operators = (resolver.OpKernelTypeStrArgs(index) for index in range(resolver.OpKernelTypeStrArgsLength()))
    return sorted((operator.OpId(), _read_types(operator)) for operator in operators)


def _read_types(operator: OpIdKernelTypeStrArgsEntry.OpIdKernelTypeStrArgsEntry) -> list[tuple[bytes, _Arguments]]:
    types = (operator.KernelTypeStrArgs(index) for index in range(operator.KernelTypeStrArgsLength()))
    return sorted(
        (
            entry.KernelTypeStr(),
            [(entry.Args(index).ArgType(), entry.Args(index).Index()) for index in range(entry.ArgsLength())],
        )
        for entry in types
    )


def _written(resolver: _Resolver) -> bytes:
    builder = flatbuffers.Builder()
    operators = []
    for operator, types in resolver:
        entries = []
        for name, arguments in types:
            parts = []
            for kind, index in arguments:
                ArgTypeAndIndex.Start(builder)
                ArgTypeAndIndex.AddArgType(builder, kind)
                ArgTypeAndIndex.AddIndex(builder, index)
                parts.append(ArgTypeAndIndex.End(builder))
            vector, text = _vector(builder, parts), builder.CreateString(name)
            KernelTypeStrArgsEntry.Start(builder)
            KernelTypeStrArgsEntry.AddKernelTypeStr(builder, text)
            KernelTypeStrArgsEntry.AddArgs(builder, vector)
            entries.append(KernelTypeStrArgsEntry.End(builder))
        vector, text = _vector(builder, entries), builder.CreateString(operator)
        OpIdKernelTypeStrArgsEntry.Start(builder)
        OpIdKernelTypeStrArgsEntry.AddOpId(builder, text)
        OpIdKernelTypeStrArgsEntry.AddKernelTypeStrArgs(builder, vector)
        operators.append(OpIdKernelTypeStrArgsEntry.End(builder))
    vector = _vector(builder, operators)
    KernelTypeStrResolver.Start(builder)
    KernelTypeStrResolver.AddOpKernelTypeStrArgs(builder, vector)
    builder.Finish(KernelTypeStrResolver.End(builder))
    return bytes(builder.Output())


def _vector(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    vector: int = builder.EndVector()
    return vector
