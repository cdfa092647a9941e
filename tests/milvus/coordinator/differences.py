"""Where our metastore may differ from stock's after the same script, and why."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowed:
    """`place` is searched in the place of a difference, `stock` and `ours` in the values; None as a
    pattern stands for "there is none"."""

    place: str
    reason: str
    stock: str | None = ""
    ours: str | None = ""

    def covers(self, place, stock, ours):
        return re.search(self.place, place) is not None \
            and matches(self.stock, stock) and matches(self.ours, ours)


def matches(pattern, value):
    if pattern is None or value is None:
        return (pattern is None) == (value is None) or pattern == ""
    return re.search(pattern, value) is not None


# Every entry is a decision. One that nothing needs any more is taken out.
ALLOWED = [
    Allowed(r"^segment-index/.* \.records$",
            "stock may build the index of one segment more than once, when several of its loops"
            " find it at the same time", stock="^[2-9]$", ours="^1$"),
    Allowed(r"^datacoord-meta/statslog/.* \.log_size$",
            "statistics are as text, and there are more of them the more often a data node syncs",
            stock="^[0-9]+$", ours="^[0-9]+$"),
    # A record that holds something would differ in other lines as well.
    Allowed(r"^datacoord-meta/deltalog/.* \.(binlogs|records)$",
            "a data node that ends a channel tells of segments without deletes: ours keeps the empty"
            " list", stock=None, ours="^(none|1)$"),
]


# What ours answers instead of stock, question by question.
ANSWERS = {
    # Stock leaves it out, and the proxy knows no reason.
    "AssignSegmentID of an unknown collection":
        'segIDAssignments { channel_name: "by-dev-rootcoord-dml_9_404v0" collectionID: 404'
        " partitionID: #3 status { error_code: CollectionNotExists code: 100 } } status { }",
    # Stock lets any node move a checkpoint, also past rows that only the channel's owner has.
    "UpdateChannelCheckpoint of a stranger": "error_code: UnexpectedError code: 500",
    # Stock sets the legacy field alone; every failure of ours sets both.
    "GcControl without a command": "error_code: UnexpectedError code: 65535",
    "GcControl pause without a duration": "error_code: UnexpectedError code: 65535",
    "GcControl pause for no number": "error_code: UnexpectedError code: 65535",
}


def sort_out(differences):
    """The differences by the reason that allows them, and those that no reason allows."""
    allowed, rest = {}, []
    for place, stock, ours in differences:
        reason = next((one.reason for one in ALLOWED if one.covers(place, stock, ours)), None)
        if reason is None:
            rest.append((place, stock, ours))
        else:
            allowed.setdefault(reason, []).append((place, stock, ours))
    return allowed, rest
