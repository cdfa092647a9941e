"""Changes keys of a milvus.yaml in place: the shipped file with its comments stays what it is."""

import re

KEY = re.compile(r"^( *)([A-Za-z0-9_]+):([^#]*)(#.*)?$")
INDENT = 2


def with_settings(text, settings):
    """`settings` holds dotted keys. One that the file does not name is added to its section."""
    lines = text.splitlines()
    for key, value in settings.items():
        set_one(lines, key.split("."), value)
    return "\n".join(lines) + "\n"


def set_one(lines, path, value):
    places = places_of_keys(lines)
    written = written_value(value)
    at = places.get(tuple(path))
    if at is not None:
        indent, name, _, comment = KEY.match(lines[at]).groups()
        lines[at] = f"{indent}{name}: {written} {comment or ''}".rstrip()
        return
    known = max((n for n in range(len(path)) if tuple(path[:n]) in places), default=0)
    at = places[tuple(path[:known])] + 1 if known else len(lines)
    sections = [f"{' ' * (INDENT * depth)}{path[depth]}:" for depth in range(known, len(path))]
    sections[-1] += f" {written}"
    lines[at:at] = sections


def places_of_keys(lines):
    """Line of each key by its path."""
    path = []
    places = {}
    for at, line in enumerate(lines):
        found = KEY.match(line)
        if found is None:
            continue
        depth = len(found.group(1)) // INDENT
        path = path[:depth] + [found.group(2)]
        places.setdefault(tuple(path), at)
    return places


def written_value(value):
    return str(value).lower() if isinstance(value, bool) else str(value)
