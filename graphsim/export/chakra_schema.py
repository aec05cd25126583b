"""The Chakra execution-trace schema as protobuf messages, built from its published field numbers.

Facts from MLCommons Chakra, schema/protobuf/et_def.proto (github.com/mlcommons/chakra, read November 2026); storage
nodes, which describe file systems, are left out. Unknown fields are skipped on reading, as always in protobuf.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from graphsim.errors import needs

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto

PACKAGE = "ChakraProtoMsg"

NODE_TYPES = (
    "INVALID_NODE", "METADATA_NODE", "MEM_LOAD_NODE", "MEM_STORE_NODE", "COMP_NODE",
    "COMM_SEND_NODE", "COMM_RECV_NODE", "COMM_COLL_NODE",
)  # fmt: skip
COLLECTIVES = (
    "ALL_REDUCE", "REDUCE", "ALL_GATHER", "GATHER", "SCATTER", "BROADCAST", "ALL_TO_ALL",
    "REDUCE_SCATTER", "REDUCE_SCATTER_BLOCK", "BARRIER",
)  # fmt: skip

_SCALARS = (
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64",
    "fixed32", "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes",
)  # fmt: skip
"""Scalar types of attribute values, in the order of their field numbers: 3 for double, 4 for its list, and so on."""

_MESSAGES: dict[str, tuple[tuple[int, str, str], ...]] = {
    "GlobalMetadata": ((1, "version", "string"), (2, "attr", "*AttributeProto")),
    "Node": (
        (1, "id", "uint64"),
        (2, "name", "string"),
        (3, "type", "=NodeType"),
        (4, "ctrl_deps", "*uint64"),
        (5, "data_deps", "*uint64"),
        (6, "start_time_micros", "uint64"),
        (7, "duration_micros", "uint64"),
        (8, "inputs", "IOInfo"),
        (9, "outputs", "IOInfo"),
        (10, "attr", "*AttributeProto"),
    ),
    "IOInfo": ((1, "values", "string"), (2, "shapes", "string"), (3, "types", "string")),
}
"""Field number, name and type; `*` repeated, `=` an enum."""


def message(name: str) -> Any:
    """The class of a message: `Node`, `GlobalMetadata`, `AttributeProto`, …

    Raises ConfigError if protobuf is not installed.
    """
    return _messages()[name]


@cache
def _messages() -> dict[str, Any]:
    """All message classes, from one descriptor pool, as messages of different pools cannot be nested."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise needs("protobuf", "chakra") from None
    file = descriptor_pb2.FileDescriptorProto(name="graphsim/et_def.proto", package=PACKAGE, syntax="proto3")
    for enum, members in (("NodeType", NODE_TYPES), ("CollectiveCommType", COLLECTIVES)):
        described = file.enum_type.add(name=enum)
        for number, member in enumerate(members):
            described.value.add(name=member, number=number)
    for title, fields in _MESSAGES.items():
        described_message = file.message_type.add(name=title)
        for field_number, field_name, kind in fields:
            _field(described_message, field_number, field_name, kind)
    _attribute(file.message_type.add(name="AttributeProto"))
    for kind in _SCALARS:
        _field(file.message_type.add(name=f"{kind.capitalize()}List"), 1, "values", f"*{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [described.name for described in file.message_type]
    return {title: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{title}")) for title in names}


def _attribute(described: DescriptorProto) -> None:
    """The descriptor of AttributeProto: a name and one value, a scalar or a list of scalars."""
    _field(described, 1, "name", "string")
    _field(described, 2, "doc_string", "string")
    described.oneof_decl.add(name="value")
    for i, kind in enumerate(_SCALARS):
        _field(described, 3 + 2 * i, f"{kind}_val", kind)
        _field(described, 4 + 2 * i, f"{kind}_list", f"{kind.capitalize()}List")
    for field in described.field[2:]:
        field.oneof_index = 0


def _field(described: DescriptorProto, number: int, name: str, kind: str) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    plain = kind.lstrip("*=")
    field = described.field.add(name=name, number=number)
    field.label = Field.LABEL_REPEATED if kind.startswith("*") else Field.LABEL_OPTIONAL
    if plain in _SCALARS:
        field.type = Field.Type.Value(f"TYPE_{plain.upper()}")
        return
    field.type = Field.TYPE_ENUM if kind.startswith("=") else Field.TYPE_MESSAGE
    field.type_name = f".{PACKAGE}.{plain}"
