"""Reading one block of a model file, node by node: one program, or two."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphsim.errors import choices_text
from graphsim.files.reading import Fields
from graphsim.graph import Value
from graphsim.models.layers import custom
from graphsim.models.yaml.misfits import misfits
from graphsim.models.yaml.names import constants, usable
from graphsim.models.yaml.nodes import KINDS, NodeEntry, Setting
from graphsim.models.yaml.overrides import Overrides
from graphsim.models.yaml.places import HEAD, Place, Sizes

MOST_NODES = 500
PROGRAMS = ("prompt", "decode")


def read_program(
    blocks: Fields,
    name: str,
    model: Fields,
    layer: Overrides,
    place: Place,
    hidden: int,
    source: int,
    around: Callable[[], Sizes],
) -> custom.Program | None:
    """The block of this name with the layer's numbers substituted; None after noting a problem.

    blocks: all blocks of the model file
    name: name of the block
    model: the model file, which collects the problems
    layer: the layer's overrides
    place: the block's role
    hidden, source: as in `Blocks`
    around: gives the sizes around the block; called only if the block can be read
    """
    setting = Setting(
        layer=layer, hidden=hidden, known=constants(layer, model, hidden), is_head=place is HEAD, has_source=source > 0
    )
    before = len(model.problems)
    program = _program(blocks, name, model, setting, place)
    if program is not None and len(model.problems) == before:
        model.problems += [f"blocks.{name}{problem}" for problem in misfits(program, place, around())]
    return program


def _program(blocks: Fields, name: str, model: Fields, setting: Setting, place: Place) -> custom.Program | None:
    if not isinstance(blocks.data[name], Mapping):
        return _block(blocks, name, model, setting, place)
    both = blocks.mapping(name)
    prompt, decode = (_block(both, key, model, setting, place) for key in PROGRAMS)
    return custom.TwoPrograms(prompt=prompt, decode=decode) if prompt and decode else None


def _block(fields: Fields, key: str, model: Fields, setting: Setting, place: Place) -> custom.CustomBlock | None:
    entries = fields.sequence(key, most=MOST_NODES)
    if not entries:
        fields.problem(key, "is not allowed; expected a list of nodes, at least one")
        return None
    nodes: dict[str, custom.Node] = {}
    for i, entry in enumerate(entries):
        node = _node(model.child(entry, f"{fields.name(key)}[{i}]"), nodes, setting, place)
        nodes[node.name] = node
    return custom.CustomBlock(nodes=tuple(nodes.values()))


def _node(fields: Fields, earlier: Mapping[str, custom.Node], setting: Setting, place: Place) -> custom.Node:
    name = fields.text("name")
    entering = [custom.INPUT, *([custom.SOURCE] if setting.has_source else [])]
    if name is not None and (not usable(name) or name in (*earlier, *entering)):
        names = " or ".join(f"'{value}'" for value in entering)
        fields.problem(
            "name", f"is not allowed; expected letters, digits and _, used once in the block and not {names}"
        )
        name = None
    found = fields.text("op", choices=KINDS)
    kind = KINDS[found if found in KINDS else "elementwise"]
    idle = kind.weights and fields.flag("idle", False)
    of_weights_alone = kind.least == 0 and fields.raw("inputs") == []
    takes_none = idle or kind.most == 0 or of_weights_alone
    inputs = () if takes_none else _inputs(fields, earlier, place, setting.has_source)
    if idle or kind.most == 0:
        _refuse_inputs(fields, "no row passes it" if idle else f"{found} takes none")
    elif kind.takes and not kind.least <= len(inputs) <= kind.most:
        fields.problems.append(f"{fields.name('inputs')}: {_article(str(found))} needs {kind.takes}")
    return kind.read(fields, NodeEntry(name=name or f"unnamed_{len(earlier)}", inputs=inputs, idle=idle), setting)


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _refuse_inputs(fields: Fields, why: str) -> None:
    if fields.raw("inputs") not in (None, []):
        fields.problem("inputs", f"is not allowed, since {why}; drop it")


def _inputs(fields: Fields, earlier: Mapping[str, custom.Node], place: Place, has_source: bool) -> tuple[Value, ...]:
    """The inputs of a node: earlier nodes or parts of their results, by default the preceding node."""
    entering = [*([custom.SOURCE] if has_source else []), custom.INPUT] if place.entered else []
    flowing = [*entering, *(name for name, node in earlier.items() if not node.idle)]
    if not flowing:
        fields.problem("inputs", "has nothing to name: a stem takes no input; expected an embedding or a value first")
        return (Value(custom.INPUT),)
    raw = fields.raw("inputs", flowing[-1])
    entries = [raw] if isinstance(raw, str) else raw
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, str) for entry in entries):
        fields.problem("inputs", "is not allowed; expected the name of an earlier node, or a list of such names")
        return (Value(flowing[-1]),)
    values = [_value(fields, entry, flowing, earlier) for entry in entries]
    wholes = {value.node for value in values if value and not value.parts}
    for value in values:
        if value and value.parts and value.node in wholes:
            fields.problem("inputs", f"names '{value.node}' and a part of it; expected one of them")
    return tuple(value for value in values if value)


def _value(fields: Fields, entry: str, flowing: list[str], earlier: Mapping[str, custom.Node]) -> Value | None:
    node, _, part = entry.partition(".")
    parts = earlier[node].parts if node in earlier else ()
    if node in earlier and earlier[node].idle:
        fields.problem("inputs", f"names '{node}', which no row passes")
    elif node not in flowing:
        fields.problem("inputs", f"names '{entry[:60]}', which is not an earlier node; {choices_text(node, flowing)}")
    elif part and part not in parts:
        fields.problem("inputs", f"names '{entry[:60]}', which '{node}' does not have; {choices_text(part, parts)}")
    else:
        return Value(node, (part,) if part else ())
    return None
